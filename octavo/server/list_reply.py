"""A reply with a list that may be very long: thousands of embeddings are hundreds of megabytes of JSON.

To make and encode it in one piece would hold every other client up for as long. So entries are made and
encoded one at a time, in a thread, and sent as they are, each no more than what one input asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.server.replies import off_loop_if_long

_encode = msgspec.json.Encoder().encode

NUMBER_BYTES = 8
"""What a number counts as, against LONG_BODY_BYTES: about as long as others can wait for so many."""


async def list_reply(
    entries: Iterable[Any], num_numbers: int, *, whole: msgspec.Struct | None = None, name: str = "data"
) -> Response:
    """The list, or `whole` with it in place of its empty list `name`. `entries` are made while they are
    read. num_numbers: in all of them together."""
    before, after = b"[", b"]"
    if whole is not None:
        before, empty, after = _encode(whole).partition(b'"%b":[]' % name.encode())
        before, after = before + empty[:-1], b"]" + after
    pieces = await off_loop_if_long(num_numbers * NUMBER_BYTES, _pieces, before, entries, after)
    return PiecesReply(pieces)


class PiecesReply(Response):
    """JSON that was encoded in pieces."""

    media_type = "application/json"

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.headers["content-length"] = str(sum(map(len, pieces)))
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _pieces(before: bytes, entries: Iterable[Any], after: bytes) -> list[bytes]:
    pieces = [before]
    for number, entry in enumerate(entries):
        pieces.append(b",%b" % _encode(entry) if number else _encode(entry))
    return [*pieces, after]
