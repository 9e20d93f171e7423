"""Reasoning without tools, in every format, however the stream is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from octavo.server.parsing.reasoning import REASONING_FORMATS
from tests.fuzz.target import Run, Target
from tests.fuzz.targets.tool_parsers import check, mutate

NAMES = sorted(REASONING_FORMATS)


def opened(folder: Path) -> Run:
    """The first byte chooses the format, the third whether it has begun, and where the stream is cut."""

    def run(data: bytes) -> None:
        if len(data) >= 3:
            name = NAMES[data[0] % len(NAMES)]
            check(None, name, data[2] % 2 == 1, data[3:].decode("utf-8", "replace"), Random(data[2]))

    return run


def seeds() -> Iterator[bytes]:
    for index, name in enumerate(NAMES):
        form = REASONING_FORMATS[name]
        begin, end = (*form.begins, "")[0], (*form.ends, "")[0]
        yield bytes([index, 0, 0]) + f"{begin}\nWhy?\n{end}\n\nBecause.".encode()
        yield bytes([index, 0, 1]) + f"Why?\n{end}\nBecause. {begin} again".encode()


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=4096)
