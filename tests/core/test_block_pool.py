"""The block pool against a plain model of it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octavo.base.errors import EngineError
from octavo.core.kv.pool import NULL_BLOCK, BlockPool


class PoolMachine(RuleBasedStateMachine):
    """Free blocks are a list here, counts a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[int] = []
        self.pool = BlockPool(9, self.forgotten.append)
        self.free = list(range(1, 9))
        self.counts = dict.fromkeys(range(1, 9), 0)
        self.keeps: set[int] = set()
        self.pinned: set[int] = set()

    @rule(count=st.integers(0, 8))
    def allocate(self, count: int) -> None:
        if count > len(self.free):
            with pytest.raises(AssertionError):
                self.pool.allocate(count)
            return
        self.forgotten.clear()
        expected, self.free = self.free[:count], self.free[count:]
        assert self.pool.allocate(count) == expected
        assert self.forgotten == [block for block in expected if block in self.keeps]
        self.keeps -= set(expected)
        self.pinned -= set(expected)
        self.counts.update(dict.fromkeys(expected, 1))

    @rule(block=st.integers(1, 8))
    def share(self, block: int) -> None:
        self.pool.share([block, NULL_BLOCK])
        if self.counts[block] == 0:
            self.free.remove(block)
        self.counts[block] += 1

    @precondition(lambda self: any(self.counts.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from([block for block, count in self.counts.items() if count]))
        self.pool.release(block)
        self.pool.release(NULL_BLOCK)
        self.counts[block] -= 1
        if self.counts[block] == 0:
            self._put_back(block)

    @rule(block=st.integers(1, 8), keeps=st.booleans())
    def mark(self, block: int, keeps: bool) -> None:
        self.pool.mark(block, keeps_prefix=keeps)
        if keeps == (block in self.keeps):
            return
        self.keeps ^= {block}
        self.pinned.discard(block)
        self._move(block)

    @precondition(lambda self: self.keeps)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.keeps)))
        self.pool.pin(block)
        self.pinned.add(block)
        self._move(block)

    @rule(block=st.integers(1, 8))
    def unpin(self, block: int) -> None:
        self.pool.unpin(block)
        if block in self.pinned:
            self.pinned.remove(block)
            self._move(block)

    def _move(self, block: int) -> None:
        if self.counts[block] == 0:
            self.free.remove(block)
            self._put_back(block)

    def _put_back(self, block: int) -> None:
        """Worthless ones first, pinned ones last."""
        if block not in self.keeps:
            place = 0
        elif block in self.pinned:
            place = len(self.free)
        else:
            place = sum(1 for other in self.free if other not in self.pinned)
        self.free.insert(place, block)

    @invariant()
    def agrees(self) -> None:
        assert self.pool.free_order() == self.free
        assert self.pool.num_free == len(self.free)
        assert self.pool.count_free(range(9)) == len(self.free)
        self.pool.check([0, *self.counts.values()])
        self.pool.check_marks(self.keeps, self.pinned)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_release_without_hold_is_refused() -> None:
    pool = BlockPool(3, lambda block: None)
    with pytest.raises(AssertionError, match="released more often"):
        pool.release(1)


def test_check_sees_a_block_nobody_names_and_a_wrong_mark() -> None:
    pool = BlockPool(4, lambda block: None)
    pool.allocate(1)
    with pytest.raises(EngineError, match=r"\[1\]"):
        pool.check([0, 0, 0, 0])
    pool.mark(2, keeps_prefix=True)
    with pytest.raises(EngineError, match=r"\[2\]"):
        pool.check_marks(set(), set())
    with pytest.raises(EngineError, match=r"\[2\] are marked wrongly as pinned"):
        pool.check_marks({2}, {2})
    with pytest.raises(AssertionError, match="worth a pin"):
        pool.pin(3)


def test_check_sees_a_broken_free_list() -> None:
    pool = BlockPool(4, lambda block: None)
    pool.num_free = 2
    with pytest.raises(EngineError, match="free list"):
        pool.check([0, 0, 0, 0])
