"""Pinned prefixes outlive others under pressure, end in time, and never stand in a request's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from octavo.core.kv.pins import Pins
from octavo.core.kv.pool import BlockPool
from octavo.executor.fake import FULL, sliding
from octavo.messages.request import PrefixPin

PINNED = list(range(100, 116))
"""A prompt of four blocks."""


def pool_with(keeping: int) -> BlockPool:
    pool = BlockPool(keeping + 1, lambda block: None)
    for block in range(1, keeping + 1):
        pool.mark(block, keeps_prefix=True)
    return pool


def test_the_longest_not_asked_for_give_way_at_the_limit() -> None:
    pool = pool_with(8)
    pins = Pins(pool)
    assert pins.limit == 4
    pins.pin([1, 2, 3, 4], 10.0)
    pins.pin([1, 5], 10.0)
    assert pins.blocks() == {3, 4, 1, 5}
    assert pool.free_order()[-4:] == [3, 4, 1, 5]
    pins.check()


def test_a_pin_ends_in_time_and_a_later_one_makes_it_longer() -> None:
    pool = pool_with(8)
    pins = Pins(pool)
    pins.pin([1, 2], 10.0)
    pins.pin([2], 20.0)
    pins.pin([2], 5.0)
    pins.expire(9.9)
    assert pins.blocks() == {1, 2}
    pins.expire(10.0)
    assert pins.blocks() == {2}
    pins.expire(20.0)
    assert pins.blocks() == set()
    pool.check_marks(set(range(1, 9)), set())


def ask(bench: Any, make: Any, name: str, prompt: Sequence[int], **options: Any) -> int:
    """Run one request to its end; returns how many tokens of its prompt were cached."""
    bench.core.add(make(name, prompt, max_tokens=2, **options))
    bench.run()
    cached: int = bench.last[name].num_cached_tokens
    return cached


def crowd(bench: Any, make: Any, count: int = 12) -> None:
    """Other prompts, one after the other: more than the pool holds."""
    for number in range(count):
        start = 1000 * (number + 1)
        ask(bench, make, f"crowd-{start}-{len(bench.tokens)}", range(start, start + 16))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("layers", [(FULL, FULL), (FULL, sliding(6))])
def test_a_pinned_prefix_survives_a_crowd(bench, request_for, depth: int, layers: Any) -> None:
    def cached_after_crowd(**options: Any) -> int:
        made = bench(blocks=33, depth=depth, layers=layers)
        ask(made, request_for, "first", PINNED, **options)
        crowd(made, request_for)
        return ask(made, request_for, "again", [*PINNED, 7])

    assert cached_after_crowd() == 0
    assert cached_after_crowd(pins=[PrefixPin(16, 1e9)]) == 16
    assert cached_after_crowd(pins=[PrefixPin(11, 1e9)]) == 8
    assert cached_after_crowd(pins=[PrefixPin(10**9, 1e9)]) == 16
    assert cached_after_crowd(pins=[PrefixPin(0, 1e9), PrefixPin(-5, 1e9)]) == 0


def test_salts_keep_pins_apart(bench, request_for) -> None:
    made = bench(blocks=33)
    ask(made, request_for, "first", PINNED, pins=[PrefixPin(16, 1e9)], cache_salt="a")
    crowd(made, request_for)
    assert ask(made, request_for, "other", [*PINNED, 7], cache_salt="b") == 0
    assert ask(made, request_for, "same", [*PINNED, 7], cache_salt="a") == 16


def test_a_pin_that_is_over_protects_nothing(bench, request_for) -> None:
    """The clock of the bench counts steps."""
    made = bench(blocks=33)
    ask(made, request_for, "first", PINNED, pins=[PrefixPin(16, 3.0)])
    crowd(made, request_for)
    assert ask(made, request_for, "again", [*PINNED, 7]) == 0


def test_requests_of_the_same_prefix_renew_its_pin(bench, request_for) -> None:
    made = bench(blocks=33)
    for number in range(6):
        expected = 12 if number else 0  # One token has to be left to compute.
        pins = [PrefixPin(16, 9.0)]
        assert ask(made, request_for, f"turn-{number}", PINNED, pins=pins) == expected
        crowd(made, request_for, count=3)


def test_pins_yield_to_a_request_that_needs_the_whole_pool(bench, request_for) -> None:
    made = bench(blocks=17)
    ask(made, request_for, "first", PINNED, pins=[PrefixPin(16, 1e9)])
    long = list(range(500, 560))
    assert ask(made, request_for, "long", long) == 0
    assert len(made.tokens["long"]) == 2
    assert ask(made, request_for, "again", [*PINNED, 7]) == 0


def test_pins_never_make_running_requests_wait(bench, request_for) -> None:
    """All blocks pinned and a crowd at once: the same tokens as in a pool without pins."""

    def run(pins: list[PrefixPin]) -> dict[str, list[int]]:
        made = bench(blocks=21, seqs=4)
        for number in range(8):
            start = 50 * number
            made.core.add(request_for(f"r{number}", range(start, start + 14), max_tokens=12, pins=pins))
        made.run()
        tokens: dict[str, list[int]] = made.tokens
        return tokens

    assert run([PrefixPin(14, 1e9)]) == run([])


def test_no_more_than_a_share_is_pinned(bench, request_for) -> None:
    made = bench(blocks=33)
    for number in range(10):
        start = 1000 * number
        ask(made, request_for, f"p{number}", range(start, start + 16), pins=[PrefixPin(16, 1e9)])
        assert len(made.core._kv._pins.blocks()) <= 16
    assert ask(made, request_for, "last", [*range(9000, 9016), 7]) == 16


def test_a_prefix_longer_than_the_share_keeps_its_beginning(bench, request_for) -> None:
    made = bench(blocks=21)
    prompt = list(range(100, 148))
    ask(made, request_for, "first", prompt, pins=[PrefixPin(48, 1e9)])
    crowd(made, request_for)
    assert ask(made, request_for, "again", [*prompt, 7]) == 40


def test_a_reset_forgets_pins(bench, request_for) -> None:
    made = bench(blocks=33)
    ask(made, request_for, "first", PINNED, pins=[PrefixPin(16, 1e9)])
    made.core.reset_prefix_cache()
    made.core.check()
    assert made.core._kv._pins.blocks() == set()


def test_without_a_prefix_cache_pins_mean_nothing(bench, request_for) -> None:
    made = bench(blocks=33, caching=False)
    assert ask(made, request_for, "first", PINNED, pins=[PrefixPin(16, 1e9)]) == 0
    assert made.core._kv._pins.blocks() == set()


def test_a_model_that_keeps_no_blocks_has_nothing_to_pin(bench, request_for) -> None:
    made = bench(layers=())
    assert ask(made, request_for, "first", PINNED, pins=[PrefixPin(16, 1e9)]) == 0
    assert len(made.tokens["first"]) == 2
