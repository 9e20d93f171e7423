"""The side of a process on a leash: frames in, frames out, within limits that the kernel keeps.

Frames are four bytes of length and so many bytes. First comes what the helper needs to begin, answered by an
empty frame; then each frame is one wish. The end of the input is the end.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

Answer = Callable[[bytes], bytes]


def serve(begin: Callable[[bytes], Answer], *, cpu_s: int, memory_bytes: int) -> None:
    """Answer until the input ends. cpu_s: for one frame. memory_bytes: beyond what beginning took."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(source)
    if first is None:
        return
    answer = begin(first)
    _bound_memory(memory_bytes)
    # A helper has nothing to write but its answers.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    write_frame(sink, b"")
    while (frame := read_frame(source)) is not None:
        _bound_time(cpu_s)
        write_frame(sink, answer(frame))


def read_frame(source: IO[bytes]) -> bytes | None:
    """None where the other side is gone."""
    head = source.read(4)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "little")
    frame = source.read(length)
    return frame if len(frame) == length else None


def write_frame(sink: IO[bytes], data: bytes) -> None:
    sink.write(len(data).to_bytes(4, "little") + data)
    sink.flush()


def _bound_memory(more_bytes: int) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return
    pages = int(statm.read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _bound_time(cpu_s: int) -> None:
    """The kernel ends a helper that nobody watches any more."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + cpu_s, hard))
