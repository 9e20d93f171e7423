"""QueueBound: how much may wait. Refuses at the door what would wait for longer than anybody wants.

The wait is predicted from what was seen: while more waited than one step takes, so many prompt tokens began
to be answered per second. A shorter queue says nothing about speed, and is over in a few steps anyway. Before
there was a queue, rows and how long requests held them say how many can begin. Answers begin in waves, so
single waits are longer than predicted: by how much is seen, too, and kept free.

Where the queue is fair, a tenant is measured by its own share: one that filled the queue is refused, and
another one's first request is still let in. With k tenants that come one after the other a bound may so be
passed up to 1 + 1/2 + ... + 1/k times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from octavo.base.clock import Clock
from octavo.base.errors import EngineError, ErrorCode
from octavo.core.forecast_error import ForecastError
from octavo.core.turnover import Turnover
from octavo.messages.request import Terms

MEMORY_S = 30.0
"""What was seen counts half after so much time with a queue."""
LEAST_S = 1.0
"""Of a queue that has to be seen, since the start, before anything is predicted."""
MAX_RETRY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """0 is no bound."""

    max_requests: int
    """That run or wait."""
    max_tokens: int
    """Prompt tokens of all that wait."""
    max_wait_s: float
    """Predicted time to the first token."""
    step_tokens: int
    """What one step takes."""
    num_rows: int
    """Requests that run at a time."""
    is_fair: bool


@dataclass
class _Load:
    """What there is of one tenant."""

    weight: float = 1.0
    requests: int = 0
    """That run or wait."""
    tokens: int = 0
    """Prompt tokens of those that have no first token yet."""


class QueueBound:
    """Told of every request that comes, gets its first token, and goes."""

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._open: dict[str, str] = {}
        """Tenants, by request id."""
        self._waiting: dict[str, int] = {}
        """Tokens, by request id."""
        self._predicted: dict[str, tuple[float, float]] = {}
        """When it came and how long it was to wait, by request id."""
        self._error = ForecastError()
        self._turnover = Turnover(bounds.num_rows)
        self._began_at: dict[str, tuple[float, int]] = {}
        """And with how many tokens, by request id."""
        self._loads: dict[str, _Load] = {}
        self._total = _Load()
        self._begun_tokens = 0.0
        """While there was a queue, and in `_queue_s`; both halved now and then."""
        self._queue_s = 0.0
        self._looked_at = clock()

    @property
    def num_waiting(self) -> int:
        """Requests without a first token."""
        return len(self._waiting)

    def check(self, terms: Terms, num_requests: int, num_tokens: int) -> None:
        """Raise OVERLOADED, with the time after which a try makes sense, unless these may wait, too."""
        self._note_time()
        bounds = self._bounds
        own, share = self._loads.get(terms.tenant, _Load()), self._share(terms)
        # One that no bound holds has to be possible, some time: when nobody is there before it.
        if self._total.requests and self._is_over(
            bounds.max_requests, self._total.requests, own.requests, num_requests, share
        ):
            raise self._refusal(
                f"{self._total.requests} requests run or wait; {bounds.max_requests} are the most."
            )
        if self._total.tokens and self._is_over(
            bounds.max_tokens, self._total.tokens, own.tokens, num_tokens, share
        ):
            raise self._refusal(f"{self._total.tokens} prompt tokens wait; {bounds.max_tokens} are the most.")
        self._check_wait(terms, num_tokens)

    def predicted_wait_s(self, terms: Terms, num_tokens: int) -> float | None:
        """Seconds to the first token of a prompt that would come now; None if nothing is known."""
        if self._total.tokens <= self._bounds.step_tokens:
            return None
        usual = self._turnover.tokens_per_s
        if usual is None and self._queue_s < LEAST_S:
            return None
        own = self._loads.get(terms.tenant, _Load()).tokens
        ahead = float(self._total.tokens)
        if self._bounds.is_fair:
            ahead = min(ahead, own / self._share(terms))
        # What a step in flight computes is counted before it is there: a long first step is no standstill.
        begun, queue_s = self._begun_tokens + self._bounds.step_tokens, self._queue_s
        if usual is not None and queue_s < LEAST_S:  # It stands for what was not seen yet.
            begun, queue_s = begun + usual * (LEAST_S - queue_s), LEAST_S
        per_s = begun / queue_s
        return (ahead + num_tokens) / per_s

    def joined(self, request_id: str, terms: Terms, num_tokens: int) -> None:
        """A request waits for its first token from now on."""
        self._note_time()
        if self._total.tokens <= self._bounds.step_tokens:
            self._predicted[request_id] = self._looked_at, 0.0
        elif (wait_s := self.predicted_wait_s(terms, num_tokens)) is not None:
            self._predicted[request_id] = self._looked_at, wait_s
        self._open[request_id] = terms.tenant
        self._waiting[request_id] = num_tokens
        own = self._loads.setdefault(terms.tenant, _Load())
        own.weight = terms.weight
        for load in (own, self._total):
            load.requests += 1
            load.tokens += num_tokens

    def began(self, request_id: str) -> None:
        """Its first token is there. Unknown ids are ignored, here and in `left`."""
        num_tokens = self._waiting.get(request_id)
        if num_tokens is None:
            return
        self._note_time()
        if self._total.tokens > self._bounds.step_tokens:
            self._begun_tokens += num_tokens
        if request_id in self._predicted:
            came_at, wait_s = self._predicted[request_id]
            self._error.add(self._looked_at - came_at - wait_s)
        self._began_at[request_id] = self._looked_at, num_tokens
        self._wait_over(request_id)

    def left(self, request_id: str) -> None:
        """It ended, for whatever reason."""
        if request_id not in self._open:
            return
        self._note_time()
        self._wait_over(request_id)
        if request_id in self._began_at:
            began_at, num_tokens = self._began_at.pop(request_id)
            self._turnover.add(self._looked_at - began_at, num_tokens)
        tenant = self._open.pop(request_id)
        own = self._loads[tenant]
        own.requests -= 1
        self._total.requests -= 1
        if not own.requests:
            del self._loads[tenant]

    def _wait_over(self, request_id: str) -> None:
        self._predicted.pop(request_id, None)
        num_tokens = self._waiting.pop(request_id, 0)
        self._loads[self._open[request_id]].tokens -= num_tokens
        self._total.tokens -= num_tokens

    def _share(self, terms: Terms) -> float:
        """Of the engine, among all that wait and this one: over 0, at most 1."""
        if not self._bounds.is_fair:
            return 1.0
        others = sum(load.weight for tenant, load in self._loads.items() if tenant != terms.tenant)
        return terms.weight / (terms.weight + others)

    def _is_over(self, bound: int, total: int, own: int, more: int, share: float) -> bool:
        if not bound or total + more <= bound:
            return False
        return not self._bounds.is_fair or own + more > bound * share

    def _check_wait(self, terms: Terms, num_tokens: int) -> None:
        now, limit_s = self._clock(), self._bounds.max_wait_s or math.inf
        if terms.deadline is not None:
            limit_s = min(limit_s, terms.deadline - now)
        if limit_s == math.inf:
            return
        wait_s = self.predicted_wait_s(terms, num_tokens)
        # Half the time is never kept free: who is let in shows how long it takes.
        if wait_s is not None and wait_s + min(self._error.margin, limit_s / 2) > limit_s:
            allowed_s = max(0.0, limit_s)
            why = f"The first token would come in about {wait_s:.0f} s; {allowed_s:.0f} s are allowed."
            raise self._refusal(why, max(0.0, wait_s - limit_s))

    def _refusal(self, why: str, retry_after_s: float = 0.0) -> EngineError:
        return EngineError(
            f"The engine is overloaded. {why} Try again soon.",
            code=ErrorCode.OVERLOADED,
            retry_after_s=min(retry_after_s, MAX_RETRY_S),
        )

    def _note_time(self) -> None:
        now = self._clock()
        if self._total.tokens > self._bounds.step_tokens:
            self._queue_s += now - self._looked_at
        self._looked_at = now
        if self._queue_s > 2 * MEMORY_S:
            self._queue_s /= 2
            self._begun_tokens /= 2
