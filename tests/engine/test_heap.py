"""The cycle collector is out of the way while requests run, and as before afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from octavo.engine.heap import THRESHOLDS, quiet_heap


def test_quiet_for_a_while_and_then_as_before() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), quiet_heap():
        assert gc.get_threshold() == THRESHOLDS and gc.get_freeze_count() > 1000
        with quiet_heap():
            pass
        assert gc.get_threshold() == THRESHOLDS and gc.get_freeze_count() > 1000
        raise KeyError
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


def test_cycles_made_meanwhile_are_still_found() -> None:
    class Knot:
        pass

    with quiet_heap():
        knot = Knot()
        knot.self = knot  # type: ignore[attr-defined]
        seen = weakref.ref(knot)
        del knot
        gc.collect()
        assert seen() is None
