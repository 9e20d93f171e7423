"""A core under an open load, with a bound on its queue, a simulated clock and steps that cost time by tokens.

Clients come at random, whatever happens to those before them; each is let in or refused at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.base.errors import EngineError
from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.core.policy import queue_bounds
from octavo.core.queue_bound import QueueBound
from octavo.executor.fake import FULL, FakeExecutor
from octavo.messages.params import SamplingParams
from octavo.messages.request import EngineRequest, Terms
from octavo.messages.result import StepOutput

PROMPT, ANSWER = 60, 20
STEP_S, TOKEN_S = 0.010, 0.001
"""What a step costs, and each token in it."""
TARGET_S = 4.0
"""The bound on the predicted time to the first token."""
CAPACITY = 10.0
"""Requests per second that the core can just keep up with."""


@dataclass(frozen=True)
class Machine:
    """What the core runs on and how it is set up."""

    step_s: float = STEP_S
    token_s: float = TOKEN_S
    max_num_seqs: int = 32
    step_tokens: int = 64
    target_s: float = TARGET_S


WAVES = Machine(step_s=0.020, token_s=0.00002, max_num_seqs=16, step_tokens=512, target_s=2.0)
"""All rows begin together and end together: nobody begins for twenty steps, then sixteen do."""


class TimedExecutor(FakeExecutor):
    """Its steps let the clock run."""

    now = 0.0

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def collect(self) -> StepOutput:
        machine = self._machine
        self.now += machine.step_s + machine.token_s * sum(self._submitted[0].num_tokens)
        return super().collect()


@dataclass
class Visit:
    """What one client saw."""

    tenant: str
    arrival: float
    is_refused: bool = False
    retry_after_s: float = 0.0
    first_token: float | None = None
    end: float | None = None

    @property
    def ttft(self) -> float:
        assert self.first_token is not None
        return self.first_token - self.arrival


@dataclass
class Overload:
    """`rates` gives requests per second of each tenant at a time."""

    rates: Callable[[float], dict[str, float]]
    duration_s: float
    policy: str = "fcfs"
    seed: int = 1
    machine: Machine = Machine()
    visits: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        schedule = ScheduleConfig(
            max_num_seqs=self.machine.max_num_seqs,
            max_num_batched_tokens=self.machine.step_tokens,
            scheduling_policy=self.policy,
            max_predicted_ttft=self.machine.target_s,
            max_num_queued_reqs=0,
        )
        self.executor = TimedExecutor(self.machine)
        plan = plan_kv([FULL, FULL], block_size=16, num_blocks=2000, available_bytes=0, useful_tokens=0)
        self.executor.allocate(plan)
        self.core = EngineCore(
            schedule=schedule,
            cache=CacheConfig(block_size=16, enable_prefix_caching=False),
            max_model_len=128,
            plan=plan,
            executor=self.executor,
            clock=lambda: self.executor.now,
        )
        self.bound = QueueBound(queue_bounds(schedule), lambda: self.executor.now)
        self.open: dict[str, Visit] = {}

    def run(self) -> list[Visit]:
        began = 0.0
        while began < self.duration_s or self.core.has_work():
            if began < self.duration_s:
                self._arrive(began)
            if self.core.has_work():
                self._step()
            else:
                self.executor.now += STEP_S
            began = self.executor.now
        bound = self.bound
        left = (bound._waiting, bound._loads, bound._open, bound._predicted, bound._began_at)
        assert not any(left), "the bound remembers who has gone"
        return self.visits

    def _arrive(self, now: float) -> None:
        elapsed = now - getattr(self, "_last_arrivals", 0.0)
        self._last_arrivals = now
        for tenant, rate in self.rates(now).items():
            expected = rate * elapsed
            count = int(expected) + (self.rng.random() < expected % 1)
            for _ in range(count):
                self._visit(tenant, now)

    def _visit(self, tenant: str, now: float) -> None:
        visit = Visit(tenant, now)
        self.visits.append(visit)
        terms = Terms(tenant)
        try:
            self.bound.check(terms, 1, PROMPT)
        except EngineError as error:
            visit.is_refused = True
            visit.retry_after_s = error.retry_after_s or 0.0
            return
        name = f"r{len(self.visits)}"
        self.open[name] = visit
        self.bound.joined(name, terms, PROMPT)
        self.core.add(
            EngineRequest(
                request_id=name,
                prompt_token_ids=[self.rng.randrange(50) for _ in range(PROMPT)],
                params=SamplingParams(max_tokens=ANSWER),
                max_tokens=ANSWER,
                eos_token_ids=[],
                random_key=1,
                arrival_time=now,
                terms=terms,
            )
        )

    def _step(self) -> None:
        for delta in self.core.step():
            visit = self.open[delta.request_id]
            if visit.first_token is None:
                visit.first_token = self.executor.now
                self.bound.began(delta.request_id)
            if delta.finish_reason is not None:
                visit.end = self.executor.now
                self.bound.left(delta.request_id)


def goodput(visits: list[Visit], begin: float, end: float) -> float:
    """Answers per second that were complete in this time and began within the target."""
    good = [v for v in visits if v.end is not None and begin <= v.end < end and v.ttft <= 1.25 * TARGET_S]
    return len(good) / (end - begin)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
