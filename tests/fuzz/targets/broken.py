"""No door of Octavo: a target that fails in every way there is, to show that the runner sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.fuzz.target import Run, Target


def opened(folder: Path) -> Run:
    def run(data: bytes) -> None:
        match data[:1]:
            case b"E":
                raise KeyError("an exception")
            case b"A":
                os.abort()
            case b"H":
                while True:
                    pass
            case b"M":
                bytearray(1 << 40)

    return run


def mutate(data: bytes, rng: Random) -> bytes:
    return bytes([rng.choice(b"AH....")]) + data[1:]


def seeds() -> Iterator[bytes]:
    yield from (b".ok", b"E", b"M")


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=8, input_s=0.5)
