"""How much may wait, and when a refused one may come again."""

from __future__ import annotations

import pytest

from octavo.base.errors import EngineError, ErrorCode
from octavo.core.forecast_error import ForecastError
from octavo.core.queue_bound import Bounds, QueueBound
from octavo.messages.request import Terms

A, B = Terms("a"), Terms("b")


class Hall:
    """A bound with a clock of ours."""

    def __init__(self, **bounds: object) -> None:
        self.now = 0.0
        options = {
            "max_requests": 0,
            "max_tokens": 0,
            "max_wait_s": 0.0,
            "step_tokens": 100,
            "num_rows": 4,
            "is_fair": False,
        }
        self.bound = QueueBound(Bounds(**{**options, **bounds}), lambda: self.now)  # type: ignore[arg-type]
        self.count = 0

    def come(self, tokens: int, terms: Terms = A, requests: int = 1) -> str:
        self.bound.check(terms, requests, tokens)
        self.count += 1
        self.bound.joined(str(self.count), terms, tokens)
        return str(self.count)

    def is_refused(self, tokens: int, terms: Terms = A, requests: int = 1) -> EngineError | None:
        try:
            self.bound.check(terms, requests, tokens)
        except EngineError as error:
            assert error.code is ErrorCode.OVERLOADED
            return error
        return None


def test_tokens_that_wait() -> None:
    hall = Hall(max_tokens=1000)
    first = hall.come(5000)  # Nobody waits before it: it has to be possible.
    assert hall.is_refused(1)
    hall.bound.began(first)
    assert not hall.is_refused(1000)
    hall.come(600)
    assert hall.is_refused(500) and not hall.is_refused(400)


def test_requests_that_run_or_wait() -> None:
    hall = Hall(max_requests=2)
    assert not hall.is_refused(1, requests=3)  # Nobody is there before it: it has to be possible, some time.
    first = hall.come(1)
    assert hall.is_refused(1, requests=2)
    hall.come(1)
    hall.bound.began(first)
    assert hall.is_refused(1)
    hall.bound.left(first)
    hall.bound.left(first)
    assert not hall.is_refused(1)


def test_nothing_is_predicted_of_a_short_queue() -> None:
    hall = Hall(max_wait_s=1.0)
    for _ in range(50):  # Slow, but it never filled a step: the next one costs one step, however long.
        name = hall.come(2)
        hall.now += 10.0
        hall.bound.began(name)
    assert hall.bound.predicted_wait_s(A, 5) is None and not hall.is_refused(10**6)


def test_the_wait_is_predicted_from_what_was_seen() -> None:
    hall = Hall(max_wait_s=30.0)
    names = [hall.come(100) for _ in range(30)]
    for name in names[:10]:
        hall.now += 1.0
        hall.bound.began(name)
    # 20 wait, one a second; the one in flight is counted in advance.
    assert hall.bound.predicted_wait_s(A, 100) == pytest.approx(2100 / 110, rel=0.01)
    assert not hall.is_refused(1000)
    error = hall.is_refused(2000)
    assert error is not None and error.retry_after_s == pytest.approx(4000 / 110 - 30.0, rel=0.01)


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    hall = Hall()
    names = [hall.come(100) for _ in range(30)]
    for name in names[:10]:
        hall.now += 1.0
        hall.bound.began(name)
    assert hall.is_refused(100, Terms("a", 1.0, hall.now + 10.0))
    assert not hall.is_refused(100, Terms("a", 1.0, hall.now + 25.0)) and not hall.is_refused(100)


def test_a_standstill_is_noticed() -> None:
    hall = Hall(max_wait_s=30.0)
    for _ in range(5):
        hall.come(100)
    assert not hall.is_refused(100)
    hall.now += 20.0
    assert hall.is_refused(100)


def test_each_tenant_has_its_share_of_the_bounds() -> None:
    hall = Hall(max_tokens=1000, max_requests=10, is_fair=True)
    for _ in range(9):
        hall.come(110)
    assert hall.is_refused(110) and not hall.is_refused(110, B) and not hall.is_refused(1, B, requests=5)
    assert hall.is_refused(600, B) and not hall.is_refused(600, Terms("b", 4.0))


def test_each_tenant_waits_for_its_own() -> None:
    hall = Hall(max_wait_s=5.0, is_fair=True)
    names = [hall.come(100) for _ in range(30)]
    for name in names[:10]:
        hall.now += 1.0
        hall.bound.began(name)
    assert hall.is_refused(100) and not hall.is_refused(100, B)


def test_books_are_empty_in_the_end() -> None:
    hall = Hall(is_fair=True)
    names = [hall.come(100, terms) for terms in (A, B, A)]
    for name in [*names, "unknown"]:
        hall.bound.began(name)
        hall.bound.began(name)
        hall.bound.left(name)
    assert not hall.bound._loads and not hall.bound._open and hall.bound._total.requests == 0


def test_before_there_was_a_queue_rows_say_how_many_can_begin() -> None:
    """Four rows, each held for 2 s by prompts of 50 tokens: 100 tokens a second begin."""
    hall = Hall(max_wait_s=5.0)
    for _ in range(3):
        name = hall.come(50)
        hall.bound.began(name)
        hall.now += 2.0
        hall.bound.left(name)
    assert hall.bound.predicted_wait_s(A, 50) is None
    for _ in range(8):
        hall.come(50)
    assert hall.bound.predicted_wait_s(A, 50) == pytest.approx(450 / (100 + 100))
    assert not hall.is_refused(50) and hall.is_refused(700)


def test_what_predictions_lack_is_kept_free() -> None:
    error = ForecastError()
    assert error.margin == 0.0
    for number in range(500):
        error.add(1.0 if number % 2 else 0.0)
    assert error.margin == pytest.approx(0.5 + 2.33 * 0.5, rel=0.05)
    for _ in range(500):
        error.add(-1.0)
    assert error.margin == 0.0


def test_what_is_kept_free_never_closes_the_door() -> None:
    hall = Hall(max_wait_s=10.0)
    for _ in range(60):  # Something went very wrong with all of these.
        name = hall.come(10)
        hall.now += 1000.0
        hall.bound.began(name)
        hall.bound.left(name)
    seen = [hall.come(50) for _ in range(3)]
    hall.now += 2.0
    for name in seen:
        hall.bound.began(name)
    for _ in range(3):
        hall.come(50)
    wait_s = hall.bound.predicted_wait_s(A, 10)
    assert wait_s is not None and wait_s < 5.0 and not hall.is_refused(10)
