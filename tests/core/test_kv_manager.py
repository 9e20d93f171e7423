"""Blocks and prefix hits: what a hit hands out is always the block that would have been computed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octavo.base.errors import EngineError
from octavo.core.kv.group import FullGroup, WindowGroup
from octavo.core.kv.manager import KVCacheManager
from octavo.core.kv.plan import plan_kv
from octavo.core.kv.pool import NULL_BLOCK
from octavo.core.kv.prefix import PrefixIndex, extend_keys, root_key
from octavo.executor.fake import FULL, sliding

SIZE = 2


def make_manager(blocks: int = 12, layers=(FULL,), caching: bool = True, **options: Any) -> KVCacheManager:
    plan = plan_kv(list(layers), block_size=SIZE, num_blocks=blocks, available_bytes=0, useful_tokens=0)
    return KVCacheManager(plan, enable_prefix_caching=caching, **options)


class ManagerMachine(RuleBasedStateMachine):
    """Requests of few different tokens come, grow and go; block contents are modelled as token prefixes."""

    layers = (FULL, sliding(3))

    def __init__(self) -> None:
        super().__init__()
        self.manager = make_manager(17, self.layers)
        self.contents: dict[int, tuple] = {}
        self.held: list = []

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=8),
        salt=st.sampled_from([None, "", "a"]),
        reserve=st.integers(0, 2),
    )
    def admit(self, tokens: list[int], salt: str | None, reserve: int) -> None:
        manager = self.manager
        holding = manager.open("someone", salt)
        hit = manager.find_prefix(holding, tokens, len(tokens) - 1)
        assert hit.num_tokens < len(tokens)
        free = manager.num_free
        if not manager.admit(holding, hit, len(tokens), reserve):
            assert manager.num_free == free
            return
        assert manager.num_free >= reserve
        for number, table in enumerate(hit.tables):
            for index, block in enumerate(table):
                window = self.layers[number].window
                if window is not None and (index + 1) * SIZE <= hit.num_tokens - window + 1:
                    assert block == NULL_BLOCK
                else:
                    assert self.contents[block] == (number, salt, tuple(tokens[: (index + 1) * SIZE]))
        self._write(holding, salt, tokens, hit.num_tokens)
        self.held.append((holding, salt, tokens))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), more=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def grow(self, data: st.DataObject, more: list[int]) -> None:
        holding, salt, tokens = data.draw(st.sampled_from(self.held))
        computed = len(tokens)
        if self.manager.grow(holding, computed, computed + len(more)) is None:
            return
        tokens.extend(more)
        self._write(holding, salt, tokens, computed)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.held))
        self.held.remove(entry)
        self.manager.free(entry[0])
        self.manager.free(entry[0])

    @precondition(lambda self: self.held)
    @rule(data=st.data(), num_tokens=st.integers(0, 12), until=st.integers(1, 9))
    def pin(self, data: st.DataObject, num_tokens: int, until: int) -> None:
        holding, _, _ = data.draw(st.sampled_from(self.held))
        self.manager.pin(holding, num_tokens, float(until))

    @rule(now=st.integers(0, 9))
    def expire(self, now: int) -> None:
        self.manager.expire_pins(float(now))
        assert all(until > now for until in self.manager._pins._until.values())

    @rule()
    def reset(self) -> None:
        self.manager.reset(holding for holding, _, _ in self.held)
        assert self.manager.num_cached == 0

    def _write(self, holding, salt: str | None, tokens: list[int], start: int) -> None:
        assert holding.capacity >= len(tokens)
        for number, table in enumerate(holding.tables):
            for index in range(start // SIZE, -(-len(tokens) // SIZE)):
                assert table[index] != NULL_BLOCK
                self.contents[table[index]] = (number, salt, tuple(tokens[: (index + 1) * SIZE]))
        self.manager.publish(holding, tokens, len(tokens))

    @invariant()
    def balances(self) -> None:
        self.manager.check(holding for holding, _, _ in self.held)


class FullMachine(ManagerMachine):
    layers = (FULL,)


TestManagerMixed = ManagerMachine.TestCase
TestManagerMixed.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestManagerFull = FullMachine.TestCase
TestManagerFull.settings = TestManagerMixed.settings


def filled(manager: KVCacheManager, tokens: list[int], salt: str | None = None):
    holding = manager.open("writer", salt)
    hit = manager.find_prefix(holding, tokens, len(tokens) - 1)
    assert manager.admit(holding, hit, len(tokens), 0)
    manager.publish(holding, tokens, len(tokens))
    return holding


def hit_length(manager: KVCacheManager, tokens: list[int], salt: str | None = None) -> int:
    return manager.find_prefix(manager.open("reader", salt), tokens, len(tokens) - 1).num_tokens


def test_hit_leaves_one_token_and_respects_salt() -> None:
    manager = make_manager()
    filled(manager, [1, 2, 3, 4], salt="a")
    assert hit_length(manager, [1, 2, 3, 4, 5], "a") == 4
    assert hit_length(manager, [1, 2, 3, 4], "a") == 2
    assert hit_length(manager, [1, 2, 9, 4, 5], "a") == 2
    for other in (None, "", "b"):
        assert hit_length(manager, [1, 2, 3, 4, 5], other) == 0


def test_tail_of_a_prefix_is_evicted_first() -> None:
    manager = make_manager(blocks=5)
    manager.free(filled(manager, [1, 2, 3, 4, 5, 6, 7, 8]))
    taker = filled(manager, [9, 9, 8, 8])
    assert hit_length(manager, [1, 2, 3, 4, 5, 6, 7, 8, 0]) == 4
    manager.free(taker)
    manager.check([])


def test_first_publisher_wins_and_withdrawing_hides() -> None:
    manager = make_manager()
    first, second = manager.open("a", None), manager.open("b", None)
    for holding in (first, second):
        assert manager.admit(holding, manager.find_prefix(holding, [1, 2, 3], 2), 3, 0)
    manager.publish(second, [1, 2, 3], 3)
    manager.publish(first, [1, 2, 3], 3)
    assert manager.journal == [(second, second.tables[0][0])]
    manager.withdraw_own(first)
    assert hit_length(manager, [1, 2, 3]) == 2
    manager.withdraw_own(second)
    assert hit_length(manager, [1, 2, 3]) == 0
    manager.check([first, second])


def test_withdraw_own_spares_what_came_from_the_cache() -> None:
    manager = make_manager()
    filled(manager, [1, 2])
    reader = filled(manager, [1, 2, 3, 4, 5])
    assert reader.first_own == 1
    manager.withdraw_own(reader)
    assert hit_length(manager, [1, 2, 3, 4, 5]) == 2


def test_only_known_tokens_are_published() -> None:
    manager = make_manager()
    holding = manager.open("a", None)
    assert manager.admit(holding, manager.find_prefix(holding, [1, 2, 3], 2), 6, 0)
    manager.publish(holding, [1, 2, 3], 4)
    assert len(holding.keys) == 1
    manager.publish(holding, [1, 2, 3, 4], 4)
    assert hit_length(manager, [1, 2, 3, 4, 5]) == 4


def test_window_blocks_come_back_and_a_hit_needs_only_the_window() -> None:
    manager = make_manager(blocks=20, layers=[sliding(3)])
    tokens = [1, 2, 3, 4, 5, 6, 7, 8]
    holding = filled(manager, tokens)
    free = manager.num_free
    assert manager.grow(holding, 8, 9) is not None
    assert holding.tables[0][:3] == [NULL_BLOCK] * 3 and holding.tables[0][3] != NULL_BLOCK
    assert manager.num_free == free + 3 - 1
    hit = manager.find_prefix(manager.open("b", None), [*tokens, 9], 8)
    assert hit.num_tokens == 8 and hit.tables[0][:3] == [NULL_BLOCK] * 3
    manager.check([holding])


def test_gemma_3_holds_what_its_pattern_needs() -> None:
    """Five layers with a window for each full one: a long text takes less than a third of its full length."""
    window, length, chunk = 64, 1024, 32
    layers = [FULL if index % 6 == 5 else sliding(window) for index in range(12)]
    manager = make_manager(6 * length // SIZE + 1, layers, caching=False)
    assert manager.num_groups == 6
    holding = manager.open("a", None)
    assert manager.admit(holding, manager.find_prefix(holding, [0] * length, length - 1), chunk, 0)
    for computed in range(chunk, length, chunk):
        assert manager.grow(holding, computed, computed + chunk) is not None
    held = manager.num_blocks - manager.num_free
    in_window = (window - 1 + chunk) // SIZE + 1
    assert held <= length // SIZE + 5 * in_window < 0.3 * 6 * length // SIZE
    manager.check([holding])
    manager.free(holding)
    assert manager.num_free == manager.num_blocks


def test_caching_off_publishes_nothing() -> None:
    manager = make_manager(caching=False)
    filled(manager, [1, 2, 3, 4])
    assert manager.num_cached == 0 and hit_length(manager, [1, 2, 3, 4, 5]) == 0


def test_admission_and_growth_are_all_or_nothing() -> None:
    manager = make_manager(blocks=4)
    holding = manager.open("a", None)
    assert not manager.admit(holding, manager.find_prefix(holding, [1] * 5, 4), 5, 1)
    assert not holding.tables and manager.num_free == 3
    assert manager.admit(holding, manager.find_prefix(holding, [1] * 5, 4), 5, 0)
    assert manager.grow(holding, 5, 7) is None
    assert manager.grow(holding, 5, 6) is manager.no_blocks
    assert holding.capacity == 6


def test_check_sees_a_lost_block() -> None:
    manager = make_manager()
    holding = filled(manager, [1, 2, 3])
    holding.tables[0].pop()
    with pytest.raises(EngineError, match="tables for"):
        manager.check([holding])
    holding.capacity -= SIZE
    with pytest.raises(EngineError, match="counted differently"):
        manager.check([holding])


def test_blocks_are_charged_by_the_second_to_each_who_holds_them() -> None:
    now = 0.0
    manager = make_manager(clock=lambda: now)
    first = filled(manager, [1, 2, 3, 4, 5])
    second = filled(manager, [1, 2, 3, 4, 6])
    now = 10.0
    assert manager.grow(first, 5, 8)
    now = 11.0
    manager.check([first, second])
    for holding in (first, second, first):
        manager.free(holding)
    blocks = -(-5 // SIZE)
    assert second.block_seconds == 11.0 * blocks
    assert first.block_seconds == 11.0 * blocks + 1.0 * (-(-8 // SIZE) - blocks)
    first.num_held = 1
    with pytest.raises(EngineError, match="charged for 1"):
        manager.check([first, second])


@given(
    window=st.integers(1, 9),
    cached=st.lists(st.booleans(), max_size=12),
)
def test_window_hit_is_the_longest_whose_window_is_cached(window: int, cached: list[bool]) -> None:
    group = WindowGroup(window, SIZE)
    keys = [bytes([index]) for index in range(len(cached))]
    blocks = {key: 1 for key, is_cached in zip(keys, cached, strict=True) if is_cached}
    good = [
        length
        for length in range(len(cached) + 1)
        if all(
            cached[position // SIZE] for position in range(max(0, length * SIZE - window + 1), length * SIZE)
        )
    ]
    assert group.longest_hit(keys, blocks, len(cached)) == max(good)


def test_full_hit_stops_at_the_first_gap() -> None:
    keys = [b"a", b"b", b"c"]
    assert FullGroup().longest_hit(keys, {b"a": 1, b"c": 2}, 3) == 1
    assert FullGroup().longest_hit(keys, dict.fromkeys(keys, 1), 2) == 2


def test_keys_depend_on_every_token_before_and_on_the_salt() -> None:
    def keys(tokens: list[int], salt: str | None = None) -> list[bytes]:
        found: list[bytes] = []
        extend_keys(found, root_key(salt), tokens, 2, len(tokens) // 2)
        return found

    assert keys([1, 2, 3, 4])[1] != keys([1, 9, 3, 4])[1]
    assert keys([1, 2, 3, 4])[0] == keys([1, 2, 9, 9])[0]
    assert keys([1, 23]) != keys([12, 3])
    assert len({root_key(salt) for salt in (None, "", "a", "\ud800", "unsalted")}) == 5


def test_index_check_sees_disagreement() -> None:
    index = PrefixIndex(1)
    assert index.publish(0, b"k", 3)
    assert not index.publish(0, b"k", 4)
    index.check()
    index._blocks[0].clear()
    with pytest.raises(EngineError, match="disagrees"):
        index.check()
