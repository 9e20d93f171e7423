"""A shelf in memory: gone with the server."""

from __future__ import annotations

from octavo.server.openai.responses.shares import Shares


class MemoryShelf:
    """Bytes by name, by owner, the oldest first."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._shares = Shares(max_count, max_bytes)
        self._owners: dict[str, str] = {}
        """By name."""
        self._data: dict[str, dict[str, bytes]] = {}
        """By owner, by name."""

    async def get(self, name: str) -> bytes | None:
        owner = self._owners.get(name)
        return None if owner is None else self._data[owner][name]

    async def put(self, owner: str, name: str, data: bytes) -> None:
        await self.delete(name)
        self._owners[name] = owner
        self._data.setdefault(owner, {})[name] = data
        self._shares.add(owner, len(data))
        while (greatest := self._shares.who_makes_room()) is not None:
            await self.delete(next(iter(self._data[greatest])))

    async def delete(self, name: str) -> bool:
        owner = self._owners.pop(name, None)
        if owner is None:
            return False
        theirs = self._data[owner]
        self._shares.add(owner, -len(theirs.pop(name)), -1)
        if not theirs:
            del self._data[owner]
        return True

    def close(self) -> None:
        self._owners.clear()
        self._data.clear()
        self._shares.clear()
