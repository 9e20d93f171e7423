"""A worker that fails as a scenario tells it to."""

from __future__ import annotations

import random

from octavo.base.errors import DeviceOutOfMemory
from octavo.executor.fake import FakeExecutor, StepLost
from octavo.messages.result import StepOutput
from octavo.messages.step import SchedulerOutput
from tests.simulation.scenario import EOS, VOCAB, Scenario, right_tokens


class InjectedFailure(RuntimeError):
    """A worker error that the simulation asked for."""


class SimulatedExecutor(FakeExecutor):
    """Fails as told, and tells an error of ours from one that was asked for."""

    def __init__(self, scenario: Scenario, rng: random.Random, poison: dict[str, int]) -> None:
        """`poison`: by request, the number of tokens from which on it spoils its steps."""
        super().__init__(
            vocab_size=VOCAB,
            layers=scenario.layers,
            eos_probability=scenario.eos_probability,
            eos_token_id=EOS,
            fail=self._maybe_fail,
        )
        self.surprise: Exception | None = None
        self.num_failures = 0
        self.num_too_large = 0
        self.num_tokens = 0
        self.num_poisoned = 0
        self.num_forced = 0
        self._scenario = scenario
        self._poison = poison
        self._progress: dict[int, tuple[str, int]] = {}
        """By row: request and computed tokens."""
        self._rng = rng
        self._fail_share = scenario.fail_share
        self._row_fail_share = scenario.row_fail_share
        self._memory_tokens = scenario.memory_tokens if scenario.schedule.enable_chunked_prefill else None
        self._memory_fail_share = scenario.memory_fail_share
        self._chunks = scenario.schedule.enable_chunked_prefill
        self._under_way: set[int] = set()
        """Steps that were on their way when one before them failed: they may meet a worker that lost rows."""

    def submit(self, step: SchedulerOutput) -> None:
        if self._rng.random() < self._fail_share / 4:
            self.num_failures += 1
            raise InjectedFailure("submit")
        if self._rng.random() < 0.2 and self._is_too_large(step):
            raise DeviceOutOfMemory("submit")
        super().submit(step)

    def collect(self) -> StepOutput:
        step = self._submitted[0]
        self.num_tokens += sum(step.num_tokens)
        try:
            output = super().collect()
            self._force(output)
            return output
        except (InjectedFailure, StepLost, DeviceOutOfMemory):
            self._under_way.update(later.step for later in self._submitted)
            raise
        except Exception as error:
            if step.step not in self._under_way:
                self.surprise = error
            raise

    def _force(self, output: StepOutput) -> None:
        """Say some of what comes next at once, where nobody wants log-probabilities of it."""
        scenario, rng = self._scenario, self._rng
        for row in output.rows:
            known = self._rows[row]
            room = scenario.max_len + 1 - len(known.tokens)
            if known.params.logprobs is not None or not room or rng.random() >= scenario.force_share:
                continue
            more = right_tokens(scenario, known.tokens, min(room, rng.randint(1, 12)), known.key)
            known.tokens.extend(more)
            output.forced[row] = more
            self.num_forced += len(more)

    def _is_poisoned(self, step: SchedulerOutput) -> bool:
        for row in step.ended_rows:
            self._progress.pop(row, None)
        for new in step.new_rows:
            self._progress[new.row] = new.request_id, new.num_computed_tokens
        is_poisoned = False
        for row, count in zip(step.rows, step.num_tokens, strict=True):
            name, computed = self._progress.get(row, ("lost with its step", 0))
            self._progress[row] = name, computed + count
            is_poisoned |= computed + count >= self._poison.get(name, computed + count + 1)
        return is_poisoned

    def _maybe_fail(self, step: SchedulerOutput) -> dict[int, str]:
        if self._is_poisoned(step):
            self.num_poisoned += 1
            raise InjectedFailure("poisoned")
        draw = self._rng.random()
        if draw < self._fail_share:
            self.num_failures += 1
            if draw < self._fail_share / 2:
                raise InjectedFailure("out of memory, say")
            raise StepLost("gone")
        if self._is_too_large(step):
            raise DeviceOutOfMemory("collect")
        if step.rows and self._rng.random() < self._row_fail_share:
            self.num_failures += 1
            # Best of all a request that has just entered: others may already read what it computes.
            rows = [new.row for new in step.new_rows] or step.rows
            return {rows[0] if self._rng.random() < 0.5 else self._rng.choice(step.rows): "injected"}
        return {}

    def _is_too_large(self, step: SchedulerOutput) -> bool:
        num_tokens = sum(step.num_tokens)
        fits = self._memory_tokens is None or num_tokens <= self._memory_tokens
        # A single token always fits here, so running out of memory alone never fails a request.
        if num_tokens <= 1 or (len(step.rows) <= 1 and not self._chunks):
            return False
        if fits and self._rng.random() >= self._memory_fail_share:
            return False
        self.num_too_large += 1
        return True
