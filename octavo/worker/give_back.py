"""Gives memory that Python and the allocators no longer use back to the system."""

from __future__ import annotations

import gc

import torch

from octavo.base.memory import trim_heap


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
    trim_heap()
