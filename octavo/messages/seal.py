"""Seal: frames between our own processes that nobody else can make, and that count only once.

A frame is a version, a number, a keyed hash (BLAKE2b) over both and the message, and the message. The key is
made at each start and handed to the child through a pipe. Two microseconds a message.
"""

from __future__ import annotations

import hashlib
import secrets
import struct

KEY_BYTES = 32
VERSION = 1
"""Of the frames and all messages in them: both sides come from one installation, or do not talk."""
MAX_FRAME_BYTES = 1 << 30
"""Larger ones are not even read: the socket drops who sends them."""
_HEAD = struct.Struct("<4sQ")
_MARK = b"OCT" + bytes([VERSION])
_MAC_BYTES = 16
_START = _HEAD.size + _MAC_BYTES


class BrokenSeal(Exception):
    """The frame is not from who it should be, or was seen before. Says how."""


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


class Seal:
    """One direction of one line: one side closes frames, the other opens them. Not thread-safe."""

    def __init__(self, key: bytes, direction: bytes) -> None:
        """direction: up to 16 bytes; a frame cannot be sent back to who made it."""
        self._keyed = hashlib.blake2b(key=key, person=direction, digest_size=_MAC_BYTES)
        self._number = 0

    def close(self, message: bytes) -> bytes:
        self._number += 1
        head = _HEAD.pack(_MARK, self._number)
        return b"".join((head, self._mac(head, message), message))

    def open(self, frame: bytes) -> memoryview:
        """The message. Raises BrokenSeal, and forgets the frame."""
        if len(frame) < _START:
            raise BrokenSeal(f"it has {len(frame)} bytes")
        mark, number = _HEAD.unpack_from(frame)
        if mark != _MARK:
            raise BrokenSeal("it is of another version or none of ours")
        message = memoryview(frame)[_START:]
        given = frame[_HEAD.size : _START]
        if not secrets.compare_digest(given, self._mac(frame[: _HEAD.size], message)):
            raise BrokenSeal("it was not made with this engine's key")
        if number <= self._number:
            raise BrokenSeal("it was sent before")
        self._number = number
        return message

    def _mac(self, head: bytes, message: bytes | memoryview) -> bytes:
        hashed = self._keyed.copy()
        hashed.update(head)
        hashed.update(message)
        return hashed.digest()


TO_CORE = b"to core"
FROM_CORE = b"from core"
