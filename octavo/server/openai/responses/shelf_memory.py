"""A shelf in memory: gone with the server."""

from __future__ import annotations


class MemoryShelf:
    """Bytes by name, the oldest first."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._data: dict[str, bytes] = {}

    async def get(self, name: str) -> bytes | None:
        return self._data.get(name)

    async def put(self, name: str, data: bytes) -> None:
        await self.delete(name)
        self._data[name] = data
        self._num_bytes += len(data)
        while len(self._data) > self._max_count or self._num_bytes > self._max_bytes:
            await self.delete(next(iter(self._data)))

    async def delete(self, name: str) -> bool:
        data = self._data.pop(name, None)
        self._num_bytes -= 0 if data is None else len(data)
        return data is not None

    def close(self) -> None:
        self._data.clear()
        self._num_bytes = 0
