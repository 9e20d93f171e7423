"""Signals that mean nothing to us, and one that has to wait for a moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def ignore(*numbers: signal.Signals) -> None:
    """What would end the process by default does nothing. Children inherit it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Ctrl-C waits until the function that this gives is called, or to the end; a second one does not.

    An exception at any place would leave books half written. Whatever handler there was is called then; where
    none of Python's is, or in another thread than the main one, where none ever is, nothing changes.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            let_in()
        else:
            held.append((number, frame))

    def let_in() -> None:
        if held:
            handler(*held.pop())

    signal.signal(signal.SIGINT, hold)
    try:
        yield let_in
    finally:
        signal.signal(signal.SIGINT, handler)
        let_in()
