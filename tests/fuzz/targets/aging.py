"""No door of Octavo: each input leaves a little behind; the last is not to blame for it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz.target import Run, Target


def opened(folder: Path) -> Run:
    left_behind: list[bytes] = []
    return lambda data: left_behind.append(bytes(1 << 16))


def mutate(data: bytes, rng: Random) -> bytes:
    return rng.randbytes(4)


TARGET = Target(open=opened, seeds=lambda: [b"seed"], mutate=mutate, max_bytes=8, memory_bytes=1 << 27)
