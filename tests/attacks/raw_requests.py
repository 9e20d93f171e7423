"""Requests written byte by byte: for what no HTTP client sends, and clients that say half of it."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence

from tests.attacks.arena import Arena
from tests.attacks.row import Attack
from tests.attacks.send import COMPLETIONS, UNSPEAKABLE

HUNG_UP = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
REQUEST = {"prompt": "x", "max_tokens": 4, "temperature": 0}
LONG_REQUEST = {"prompt": "x", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "logprobs": 10}


def head(arena: Arena, *lines: str, path: str = COMPLETIONS, method: str = "POST", host: str = "x") -> bytes:
    """A head with our key, ready for a body."""
    all_lines = (
        f"{method} {path} HTTP/1.1",
        *([f"Host: {host}"] if host else []),
        f"Authorization: {arena.auth['authorization']}",
        *lines,
    )
    return "\r\n".join(all_lines).encode() + b"\r\n\r\n"


def whole(arena: Arena, body: dict[str, object], *lines: str) -> bytes:
    data = json.dumps(body).encode()
    return head(arena, "Content-Type: application/json", f"Content-Length: {len(data)}", *lines) + data


def status_of(answer: bytes) -> int:
    """Of the last response but '100 Continue'."""
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def raw_reply(arena: Arena, pieces: Sequence[bytes], *, half_close: bool = False, most: int = 2**20) -> bytes:
    """Send bytes on a connection of one's own; all that comes back until the server hangs up."""
    answer = b""
    with arena.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(1)
            while len(answer) < most:
                data = connection.recv(65536)
                if not data:
                    break
                answer += data
        except OSError as error:
            # The server hung up, at whichever of the calls we noticed; a timeout is a failure.
            if error.errno not in HUNG_UP:
                raise
    return answer


def sends_raw(data: bytes, *statuses: int, may_be_silent: bool = False) -> Attack:
    """Send these bytes instead of a request: one of `statuses`, and the connection is closed."""

    def attack(arena: Arena) -> None:
        answer = raw_reply(arena, [data])
        if not answer and may_be_silent:
            return
        status = int(answer[9:12] or b"0") if answer.startswith(b"HTTP/1.1 ") else 0
        assert status in statuses, f"expected one of {statuses}, got {answer[:300]!r}"
        assert not UNSPEAKABLE.search(answer.decode("latin-1")), answer[:500]

    return attack
