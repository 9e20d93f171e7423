"""Small cores on a fake executor, and requests for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.executor.fake import FULL, FakeExecutor
from octavo.messages.kv import KVSpec
from octavo.messages.params import SamplingParams
from octavo.messages.request import EngineRequest
from octavo.messages.result import RequestDelta, StepOutput
from octavo.messages.step import SchedulerOutput


class RecordingExecutor(FakeExecutor):
    """Remembers the steps it was sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps: list[SchedulerOutput] = []

    def submit(self, step: SchedulerOutput) -> None:
        self.steps.append(step)
        super().submit(step)


class Bench:
    """A core, its executor and what came out of it."""

    def __init__(
        self,
        *,
        blocks: int = 100,
        block_size: int = 4,
        max_len: int = 64,
        seqs: int = 8,
        budget: int = 32,
        caching: bool = True,
        depth: int = 1,
        layers: Sequence[KVSpec] = (FULL, FULL),
        schedule: dict[str, Any] | None = None,
        executor: type[RecordingExecutor] = RecordingExecutor,
        **fake: Any,
    ) -> None:
        self.layers = list(layers)
        self.executor = executor(layers=self.layers, **fake)
        plan = plan_kv(
            self.layers, block_size=block_size, num_blocks=blocks, available_bytes=0, useful_tokens=0
        )
        self.executor.allocate(plan)
        self.core = EngineCore(
            schedule=ScheduleConfig(max_num_seqs=seqs, max_num_batched_tokens=budget, **(schedule or {})),
            cache=CacheConfig(block_size=block_size, enable_prefix_caching=caching),
            max_model_len=max_len,
            plan=plan,
            executor=self.executor,
            clock=lambda: float(len(self.executor.steps)),
            depth=depth,
        )
        self.tokens: dict[str, list[int]] = {}
        self.last: dict[str, RequestDelta] = {}

    def step(self) -> list[RequestDelta]:
        deltas = self.core.step()
        self.core.check()
        for delta in deltas:
            self.tokens.setdefault(delta.request_id, []).extend(delta.token_ids)
            self.last[delta.request_id] = delta
        return deltas

    def run(self) -> None:
        for _ in range(10_000):
            if not self.core.has_work():
                return
            self.step()
        raise AssertionError("the core does not come to an end")


def make_request(
    request_id: str, prompt: Sequence[int], max_tokens: int = 4, **options: Any
) -> EngineRequest:
    fields = {
        name: options.pop(name)
        for name in ("priority", "cache_salt", "eos_token_ids", "random_key", "arrival_time", "pins", "terms")
        if name in options
    }
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=list(prompt),
        params=SamplingParams(max_tokens=max_tokens, **options),
        max_tokens=max_tokens,
        **{"eos_token_ids": [], "random_key": 5, "arrival_time": 0.0, **fields},
    )


@pytest.fixture
def bench() -> Callable[..., Bench]:
    return Bench


@pytest.fixture
def request_for() -> Callable[..., EngineRequest]:
    return make_request


class LyingExecutor(RecordingExecutor):
    """Answers with whatever `answer` makes of the right answer."""

    answer: Callable[[StepOutput], StepOutput] = staticmethod(lambda output: output)

    def collect(self) -> StepOutput:
        return self.answer(super().collect())


@pytest.fixture
def lying_executor() -> type[LyingExecutor]:
    return type("Lying", (LyingExecutor,), {})
