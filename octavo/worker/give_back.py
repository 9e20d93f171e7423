"""Gives memory that Python and the allocators no longer use back to the system."""

from __future__ import annotations

import ctypes
import gc

import torch


def give_back_memory() -> None:
    """Slow (some 100 ms): for the moment after something large was let go."""
    was_settled = gc.get_freeze_count() > 0
    # What was there when serving began is exempt from the collector, and may have become garbage now.
    gc.unfreeze()
    gc.collect()
    if was_settled:
        gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # The C library keeps freed memory for itself unless told otherwise; others than glibc have no such call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
