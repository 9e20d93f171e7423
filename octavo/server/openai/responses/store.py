"""What is kept of a response, and where: a shelf in memory, or one on disk.

A shelf holds bytes under a name, bounded in number and in bytes; the oldest of whoever holds the most make
room for new ones.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import msgspec

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.openai.responses.reply import Item, OutputItem, ResponseReply
from octavo.server.replies import LONG_BODY_BYTES

logger = logging.getLogger(__name__)

UNFINISHED = ("queued", "in_progress")
"""States that a response does not stay in."""


class ShelfError(Exception):
    """A shelf cannot be read or written now."""


class Shelf(Protocol):
    """Bytes by name. Raises ShelfError."""

    async def get(self, name: str) -> bytes | None: ...

    async def put(self, owner: str, name: str, data: bytes) -> None:
        """Keep `data`, in place of what was there; forget the oldest of the greatest owner if there is too
        much."""

    async def delete(self, name: str) -> bool:
        """Whether there was something to forget."""

    def close(self) -> None:
        """It is of no use afterwards. Idempotent."""


class StoredResponse(msgspec.Struct, kw_only=True):
    """One response as it is kept."""

    owner: str
    input: list[Item]
    """The items that its own request brought."""
    reply: ResponseReply
    num_bytes: int = 0
    """Its size on the shelf, once it has been there."""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(StoredResponse)


def output_items(stored: StoredResponse) -> list[Item]:
    """The output in the form that input items have."""
    return [_as_item(item) for item in stored.reply.output]


def _as_item(item: OutputItem) -> Item:
    plain: Item = msgspec.to_builtins(item)
    return plain


class ResponseStore:
    """Responses on a shelf. A response is there only for the owner that made it."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        try:
            data = await self._shelf.get(response_id)
            if data is None:
                return None
            stored = await _off_loop_if_long(data)
        except (ShelfError, msgspec.MsgspecError) as error:
            logger.warning("A stored response cannot be read: %s", error)
            raise EngineError(
                "The stored response cannot be read; the log says more.", code=ErrorCode.INTERNAL
            ) from None
        stored.num_bytes = len(data)
        return stored if stored.owner == owner else None

    async def put(self, stored: StoredResponse) -> None:
        """Keep a response. If that fails, the log says so: the answer itself is not lost by it."""
        try:
            await self._shelf.put(stored.owner, stored.reply.id, _encode(stored))
        except ShelfError as error:
            logger.warning("A response cannot be stored: %s", error)

    def close(self) -> None:
        self._shelf.close()

    async def delete(self, response_id: str) -> None:
        """Forget a response. Who asks has found it before."""
        try:
            await self._shelf.delete(response_id)
        except ShelfError as error:
            logger.warning("A stored response cannot be deleted: %s", error)
            raise EngineError(
                "The stored response cannot be deleted; the log says more.", code=ErrorCode.INTERNAL
            ) from None


async def _off_loop_if_long(data: bytes) -> StoredResponse:
    if len(data) < LONG_BODY_BYTES:
        return _decoder.decode(data)
    return await asyncio.to_thread(_decoder.decode, data)
