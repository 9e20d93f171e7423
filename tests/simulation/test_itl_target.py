"""--itl-target-ms on a simulated device whose steps cost time: streams keep their pace by long prompts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.executor.fake import FULL, FakeExecutor
from octavo.messages.params import SamplingParams
from octavo.messages.request import EngineRequest
from octavo.messages.result import StepOutput

FIXED_S, TOKEN_S, CONTEXT_S = 0.004, 60e-6, 0.5e-6
BUDGET = 1024


class TimedExecutor(FakeExecutor):
    """Its steps let the clock run by tokens and context."""

    now = 0.0
    slowness = 1.0

    def collect(self) -> StepOutput:
        step = self._submitted[0]
        context = sum(self._rows[row].num_computed for row in step.rows if row in self._rows)
        cost = FIXED_S + TOKEN_S * sum(step.num_tokens) + CONTEXT_S * context
        self.now += self.slowness * cost
        return super().collect()


@dataclass
class Desk:
    """Four streams, and long prompts that keep coming."""

    target_ms: float | None
    depth: int = 1
    gaps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executor = TimedExecutor(layers=[FULL])
        plan = plan_kv([FULL], block_size=16, num_blocks=3000, available_bytes=0, useful_tokens=0)
        self.executor.allocate(plan)
        self.core = EngineCore(
            schedule=ScheduleConfig(
                max_num_seqs=16, max_num_batched_tokens=BUDGET, itl_target_ms=self.target_ms
            ),
            cache=CacheConfig(block_size=16, enable_prefix_caching=False),
            max_model_len=4096,
            plan=plan,
            executor=self.executor,
            clock=lambda: self.executor.now,
            depth=self.depth,
        )
        self.rng = random.Random(3)
        self.last: dict[str, float] = {}
        self.num_done = 0
        for number in range(4):
            self._add(f"stream{number}", 20, 3000)

    def _add(self, name: str, length: int, max_tokens: int) -> None:
        self.core.add(
            EngineRequest(
                request_id=name,
                prompt_token_ids=[self.rng.randrange(50) for _ in range(length)],
                params=SamplingParams(max_tokens=max_tokens),
                max_tokens=max_tokens,
                eos_token_ids=[],
                random_key=1,
                arrival_time=self.executor.now,
            )
        )

    def run(self, seconds: float) -> list[float]:
        """The gaps between the streams' tokens in this time, shortest first."""
        self.gaps = []
        end = self.executor.now + seconds
        while self.executor.now < end:
            if not self.core.stats().num_waiting:
                self._add(f"prompt{self.executor.now}", 1500, 1)
            for delta in self.core.step():
                name, now = delta.request_id, self.executor.now
                if delta.finish_reason is not None:
                    self.num_done += 1
                elif name in self.last:
                    self.gaps.append(now - self.last[name])
                self.last[name] = now
        return sorted(self.gaps)


@pytest.mark.parametrize("depth", [1, 2])
def test_streams_keep_to_the_target_beside_long_prompts(depth: int) -> None:
    desk = Desk(30.0, depth)
    desk.run(1.0)
    gaps = desk.run(3.0)
    assert gaps[int(0.99 * len(gaps))] <= 0.030 * 1.1
    # And the time is used: the gaps are not far below.
    assert gaps[len(gaps) // 2] >= 0.030 * 0.8
    assert desk.num_done > 10


def test_without_a_target_they_stall() -> None:
    desk = Desk(None)
    desk.run(1.0)
    gaps = desk.run(2.0)
    assert gaps[len(gaps) // 2] > 0.060


def test_a_device_that_slows_down_gets_smaller_chunks() -> None:
    desk = Desk(30.0)
    desk.run(1.0)
    desk.executor.slowness = 1.7
    desk.run(2.0)
    gaps = desk.run(2.0)
    assert gaps[int(0.95 * len(gaps))] <= 0.030 * 1.15


def test_a_target_that_cannot_be_met_stops_nobody() -> None:
    desk = Desk(1.0)
    desk.run(3.0)
    assert desk.num_done > 0


def test_without_streams_steps_are_as_large_as_they_may_be() -> None:
    desk = Desk(30.0)
    desk.core.abort([f"stream{number}" for number in range(4)])
    desk._add("long", 3000, 1)
    sizes = []
    while desk.core.has_work():
        desk.core.step()
        sizes.append(desk.core.stats().step_tokens)
    assert sizes[:2] == [BUDGET, BUDGET]
