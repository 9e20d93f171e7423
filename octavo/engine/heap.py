"""Python's cycle collector out of the way of steps, and what only the start needed out of memory.

What a step makes is freed by reference counts. The collector only looks for cycles, and each full look
walks all that torch, pydantic and the tokenizer have put on the heap: 25 ms of pause with a thousand
requests running, longer than several steps. So what is there when work begins is exempt, and the rest is
looked at a hundred times less often. Cycles that requests leave behind are still found.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from octavo.base.memory import trim_heap, unmap_library_pages

THRESHOLDS = (70_000, 20, 20)
"""Python's own first number is 700 or 2000: new objects between two looks at the youngest."""


def settle_heap() -> None:
    """For a process of ours that is ready to serve: what it holds now, it holds to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    trim_heap()
    unmap_library_pages()


@contextmanager
def quiet_heap() -> Iterator[None]:
    """The same for a while, in a process that is not ours."""
    if gc.get_freeze_count():
        yield  # Somebody has settled it already, or a caller further up is quiet.
        return
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
