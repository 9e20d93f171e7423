"""A helper process that does what the frame says. Started by test_leash only."""

from __future__ import annotations

import time

from octavo.base.leashed import Answer, serve


def begin(_: bytes) -> Answer:
    return _answer


def _answer(frame: bytes) -> bytes:
    while frame == b"compute":
        pass
    if frame == b"wait":
        time.sleep(3600)
    return frame


if __name__ == "__main__":
    serve(begin, cpu_s=60, memory_bytes=2**30)
