"""The small parts: limits, stop rules, queues, rows."""

from __future__ import annotations

import pytest

from octavo.base.errors import EngineError
from octavo.config.schedule import ScheduleConfig
from octavo.core.fair_queue import ShareMeter
from octavo.core.finish import finish_reason, stop_token_id
from octavo.core.kv.block import Holding
from octavo.core.limits import ChunkSize, LengthLimit, TokenBudget, WholePrompt
from octavo.core.policy import make_limits, make_rank
from octavo.core.queues import RankedQueue
from octavo.core.request import Request
from octavo.core.rows import Rows
from octavo.messages.result import FinishReason, TokenLogprobs


@pytest.fixture
def make(request_for):
    def build(request_id: str = "r", prompt=(1, 2, 3), rank=(0, 0), **options) -> Request:
        return Request(request_for(request_id, prompt, **options), rank, Holding(request_id, b""))

    return build


def test_token_budget(make) -> None:
    assert [TokenBudget().cap(make(), want, 5) for want in (3, 5, 9)] == [3, 5, 5]


def test_whole_prompt(make) -> None:
    assert [WholePrompt().cap(make(), want, 5) for want in (3, 5, 9)] == [3, 5, 0]


def test_chunk_size(make) -> None:
    assert [ChunkSize(4).cap(make(), want, 99) for want in (3, 9)] == [3, 4]


def test_length_limit_stops_before_the_last_token(make) -> None:
    request = make(prompt=(1, 2, 3), max_tokens=2)
    request.num_computed = 3
    assert LengthLimit().cap(request, 1, 99) == 1
    request.num_computed = 4
    assert LengthLimit().cap(request, 1, 99) == 0


@pytest.mark.parametrize(
    ("options", "depth", "kinds"),
    [
        ({}, 1, [TokenBudget]),
        ({"long_prefill_token_threshold": 9}, 1, [ChunkSize, TokenBudget]),
        ({"enable_chunked_prefill": False}, 1, [WholePrompt, TokenBudget]),
        ({}, 2, [LengthLimit, TokenBudget]),
        ({"scheduling_policy": "fair"}, 1, [TokenBudget, ShareMeter]),
    ],
)
def test_only_active_limits_are_asked(options, depth: int, kinds: list[type]) -> None:
    assert [type(limit) for limit in make_limits(ScheduleConfig(**options), depth=depth)] == kinds


@pytest.mark.parametrize(
    ("options", "output", "reason", "stop_token"),
    [
        ({"eos_token_ids": [9]}, [4, 9], FinishReason.STOP, None),
        ({"eos_token_ids": [9], "ignore_eos": True}, [4, 9], None, None),
        ({"eos_token_ids": [9], "stop_token_ids": [8]}, [8], FinishReason.STOP, 8),
        ({"eos_token_ids": [9], "stop_token_ids": [9]}, [9], FinishReason.STOP, None),
        ({"eos_token_ids": [9], "stop_token_ids": [9], "ignore_eos": True}, [9], FinishReason.STOP, 9),
        ({"eos_token_ids": [9], "min_tokens": 2}, [9], None, None),
        ({"eos_token_ids": [9], "min_tokens": 2}, [4, 9], FinishReason.STOP, None),
        ({"eos_token_ids": [9]}, [4, 5, 6], FinishReason.LENGTH, None),
        ({"eos_token_ids": [9]}, [4, 5, 9], FinishReason.STOP, None),
        ({"eos_token_ids": [9]}, [4], None, None),
    ],
)
def test_stop_rules(make, options, output, reason, stop_token) -> None:
    request = make(max_tokens=3, **options)
    request.token_ids.extend(output)
    assert finish_reason(request, output[-1]) is reason
    if reason is FinishReason.STOP:
        assert stop_token_id(request, output[-1]) == stop_token


def test_first_come_first_served_with_preempted_in_front(make) -> None:
    queue = RankedQueue()
    a, b, c, d = (make(name, rank=make_rank("fcfs", 9 - n, n)) for n, name in enumerate("abcd"))
    for request in (c, d, b, a):
        queue.push(request)
    queue.remove(c)
    assert list(queue) == [a, b, d] and len(queue) == 3 and queue.peek() is a


def test_priority_order_with_preempted_in_front_of_their_class(make) -> None:
    queue = RankedQueue()
    low, old, new, urgent = (
        make(name, rank=make_rank("priority", priority, number))
        for name, priority, number in (("l", 5, 0), ("o", 1, 1), ("n", 1, 3), ("u", 0, 4))
    )
    for request in (low, new, urgent, old):
        queue.push(request)
    assert list(queue) == [urgent, old, new, low]
    queue.remove(urgent)
    assert queue.peek() is old
    queue.remove(old)
    queue.push(old)
    assert queue.peek() is old
    for request in (old, new, low):
        queue.remove(request)
    assert queue.peek() is None and len(queue) == 0


def test_queue_forgets_the_removed(make) -> None:
    queue = RankedQueue()
    requests = [make(str(number), rank=(0, number)) for number in range(200)]
    for request in requests:
        queue.push(request)
    for request in reversed(requests[1:]):
        queue.remove(request)
    assert len(queue._heap) < 20 and queue.peek() is requests[0]


def test_rows_tell_of_their_end_once() -> None:
    rows = Rows(2)
    first, second = rows.acquire("a"), rows.acquire("b")
    assert {first, second} == {0, 1} and not rows.has_free
    rows.check({first: "a", second: "b"})
    rows.release(first)
    assert rows.has_ended and rows.take_ended() == [first] and rows.take_ended() == []
    assert rows.acquire("c") == first
    rows.release(second)
    rows.tell_again([first, second])
    assert rows.take_ended() == [second]
    rows.tell_again([first, second])
    assert rows.take_ended() == [second]


def test_rows_check_sees_strangers_and_double_release() -> None:
    rows = Rows(2)
    row = rows.acquire("a")
    with pytest.raises(EngineError, match="owned"):
        rows.check({})
    rows.release(row)
    with pytest.raises(AssertionError, match="twice"):
        rows.release(row)
    rows._free.append(row)
    with pytest.raises(EngineError, match="add up"):
        rows.check({})


def test_prompt_logprobs_hold_the_cache_off_until_gathered(make) -> None:
    request = make(prompt=(1, 2, 3, 4), prompt_logprobs=1)
    entries = [TokenLogprobs([token], [0.0], 1) for token in (2, 3, 4)]
    assert request.max_cached_tokens == 0
    request.add_prompt_logprobs(0, entries[:2])
    assert request.max_cached_tokens == 2
    request.add_prompt_logprobs(0, entries[:1])
    request.add_prompt_logprobs(1, entries[1:])
    assert request.prompt_logprobs == entries
    assert request.max_cached_tokens == 3
    assert make(prompt=(1, 2, 3)).max_cached_tokens == 2
