"""EngineCore: the loop of schedule, submit, collect and update.

A state machine: time comes from a clock, work goes to an executor; nothing else is touched. Not
thread-safe; one thread calls it. `step()` is the hot path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import ConfigError, EngineError
from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig
from octavo.core.answer import check_answer, gather_prompt_logprobs
from octavo.core.failed_steps import FailedSteps
from octavo.core.finish import finish_reason, stop_token_id
from octavo.core.in_flight import StepRecord
from octavo.core.kv.manager import KVCacheManager
from octavo.core.kv.plan import max_request_tokens
from octavo.core.ledger import check_ledger
from octavo.core.live_requests import LiveRequests
from octavo.core.policy import make_budget, make_limits, make_waiting
from octavo.core.ports import Executor
from octavo.core.request import Request, State
from octavo.core.rows import Rows
from octavo.core.scheduler import Scheduler
from octavo.core.trials import Trials
from octavo.messages.kv import KVPlan
from octavo.messages.request import EngineRequest
from octavo.messages.result import CoreStats, FinishReason, RequestDelta, StepOutput


class EngineCore:
    """Requests in, deltas out. `depth` steps may be submitted before the first is collected."""

    def __init__(
        self,
        *,
        schedule: ScheduleConfig,
        cache: CacheConfig,
        max_model_len: int,
        plan: KVPlan,
        executor: Executor,
        clock: Clock = monotonic,
        depth: int = 1,
    ) -> None:
        max_step_tokens = schedule.max_num_batched_tokens
        assert max_step_tokens is not None, "the schedule is resolved before the core is built"
        assert depth >= 1, "at least one step has to be in flight"
        if not schedule.enable_chunked_prefill:
            chunk = None
        else:
            chunk = min(max_step_tokens, schedule.long_prefill_token_threshold or max_step_tokens)
        self.max_request_tokens = max_request_tokens(plan, max_model_len=max_model_len, max_step_tokens=chunk)
        """Most tokens, prompt and output, that one request can ever hold."""
        if chunk is None and max_step_tokens < self.max_request_tokens:
            raise ConfigError(
                f"max_num_batched_tokens is {max_step_tokens}; without chunked prefill a step has to "
                f"take the longest request, {self.max_request_tokens} tokens. Raise it or allow chunks.",
                param="max_num_batched_tokens",
            )
        assert cache.enable_prefix_caching is not None, "the cache is resolved before the core is built"
        self._kv = KVCacheManager(plan, enable_prefix_caching=cache.enable_prefix_caching, clock=clock)
        assert schedule.max_num_seqs is not None, "the schedule is resolved before the core is built"
        self._rows = Rows(schedule.max_num_seqs)
        self._budget = make_budget(schedule, max_step_tokens)
        self._scheduler = Scheduler(
            budget=self._budget,
            limits=make_limits(schedule, depth=depth),
            waiting=make_waiting(schedule.scheduling_policy),
            rows=self._rows,
            kv=self._kv,
        )
        self.executor = executor
        self._clock = clock
        self._depth = depth
        self._in_flight: deque[StepRecord] = deque()
        self._trials = Trials()
        self._requests = LiveRequests(
            self._scheduler,
            self._trials,
            policy=schedule.scheduling_policy,
            max_request_tokens=self.max_request_tokens,
            clock=clock,
        )
        self._failures = FailedSteps(self._requests, self._scheduler, self._trials, self._in_flight)
        self._num_steps = 0
        self._step_tokens = 0
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._collected_at = clock()
        self.num_collected = 0
        """Steps that came back, or failed: the stats have changed since it was less."""

    def add(self, message: EngineRequest) -> None:
        """Take a request. RequestError if it is malformed or can never fit."""
        self._requests.add(message)

    def abort(self, request_ids: Iterable[str]) -> list[RequestDelta]:
        """End these requests and take back all they hold, now. Unknown ids are ignored."""
        return self._requests.abort(request_ids)

    def has_work(self) -> bool:
        """step() has something to do, if only to tell the workers of ended rows."""
        return bool(self._requests or self._in_flight) or self._rows.has_ended

    def step(self) -> list[RequestDelta]:
        """Schedule and submit one step; collect the oldest one when enough are in flight.

        Raises EngineError when requests fail one after the other, and then a probe too: the process should
        be started anew; requests still held can go on in another core.
        """
        now = self._clock()
        return [*self._requests.expire(now), *self._step(now)]

    def _step(self, now: float) -> list[RequestDelta]:
        if self._trials.is_open:
            self._failures.hold_trial()
        record = self._scheduler.schedule(self._num_steps + 1, now)
        if record is not None:
            self._num_steps += 1
            self._in_flight.append(record)
            try:
                self.executor.submit(record.output)
            except Exception as error:
                self._in_flight.pop()
                return self._failures.end_step([record], error)
        if not self._in_flight or (record is not None and len(self._in_flight) < self._depth):
            return []
        return self._failures.without_probe(self._collect())

    def stats(self) -> CoreStats:
        scheduler = self._scheduler
        return CoreStats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            num_blocks=self._kv.num_blocks,
            num_free_blocks=self._kv.num_free,
            num_cached_blocks=self._kv.num_cached,
            prefix_queries_tokens=scheduler.prefix_queries_tokens,
            prefix_hits_tokens=scheduler.prefix_hits_tokens,
            num_preemptions=scheduler.num_preemptions,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
            steps=self._num_steps,
            step_tokens=self._step_tokens,
        )

    def take_block_seconds(self) -> dict[str, float]:
        """By tenant: blocks times seconds of the requests that ended since this was last asked.

        A block that several requests share counts for each of them; one that nobody holds for nobody.
        """
        return self._requests.take_block_seconds()

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes. Running requests go on; what they hold is not shared any more."""
        self._kv.reset(request.kv for request in self._scheduler.running)
        return True

    def sleep(self, level: int) -> None:
        """Give memory back (see Executor.sleep). Who calls has seen to it that no request is left."""
        if self._requests:
            raise EngineError(f"{len(self._requests)} requests still run: sleep when they have ended.")
        while self.has_work():  # Steps in flight, and rows whose end the workers have not heard of.
            self.step()
        self.reset_prefix_cache()
        self.executor.sleep(level)

    def wake_up(self) -> None:
        """Ready for requests again, with nothing cached."""
        self.executor.wake_up()

    def check(self) -> None:
        """Prove that nothing leaks. Costs time for every block; meant for tests and for idle moments."""
        check_ledger(self._requests.by_id, self._scheduler, self._in_flight)

    def shutdown(self) -> None:
        """Let the executor go. Idempotent; the core is of no use afterwards."""
        self.executor.shutdown()

    def _collect(self) -> list[RequestDelta]:
        record = self._in_flight.popleft()
        self.num_collected += 1
        try:
            output = self.executor.collect()
            if not record.is_void:
                check_answer(record, output)
        except Exception as error:
            return [] if record.is_void else self._failures.end_step([record, *self._in_flight], error)
        if record.is_void:
            return []
        self._failures.step_worked()
        now = self._clock()
        # Steps in flight run one after the other: what counts is the time since the one before.
        self._budget.step_took(record, now - max(record.began, self._collected_at))
        self._collected_at = now
        self._step_tokens = record.num_tokens
        return self._update(record, output, now)

    def _update(self, record: StepRecord, output: StepOutput, now: float) -> list[RequestDelta]:
        """Append what was sampled, apply the stop rules, end what is over."""
        deltas = self._failures.end_rows(record, output) if output.failed else []
        numbers = output.numbers
        num_tokens = len(output.rows) - len(numbers)
        forced = output.forced
        if output.prompt_logprobs:
            gather_prompt_logprobs(record, output)
        sampling = record.sampling
        logprobs = output.logprobs
        for row, token in zip(output.rows, output.token_ids, strict=True):
            request = sampling[row]
            if request is None or request.state is State.FINISHED:
                num_tokens -= row not in numbers
                continue
            delta = self._accept(request, token, now)
            if forced and row in forced:
                num_tokens += self._accept_forced(request, delta, forced[row])
            if logprobs and row in logprobs:
                delta.logprobs = [logprobs[row]]
            if numbers and row in numbers:
                delta.token_ids, delta.numbers = [], numbers[row]
            deltas.append(delta)
        if self._trials.is_open:
            for request in filter(None, sampling.values()):
                self._trials.clear(request)
        self._generation_tokens += num_tokens
        return deltas

    def _accept(self, request: Request, token: int, now: float) -> RequestDelta:
        """Runs per token: what few tokens need is left to others."""
        request.token_ids.append(token)
        request.last_token = now
        delta = RequestDelta(
            request_id=request.request_id,
            token_ids=[token],
            num_cached_tokens=request.num_cached,
            num_preemptions=request.num_preemptions,
        )
        if request.first_token is None:
            request.first_token = now
            self._prompt_tokens += request.num_prompt
            for pin in request.message.pins:
                self._kv.pin(request.kv, pin.num_tokens, now + pin.ttl_s)
            delta.timing = request.timing
            delta.prompt_logprobs = request.prompt_logprobs
        reason = finish_reason(request, token)
        if reason is not None:
            self._end_with(request, delta, token, reason)
        return delta

    def _accept_forced(self, request: Request, delta: RequestDelta, tokens: list[int]) -> int:
        """Append tokens that could only follow; the next step computes them all. Returns how many count."""
        assert self._depth == 1, "a step in flight would not know of them"
        for number, token in enumerate(tokens):
            if request.state is State.FINISHED:
                return number
            request.token_ids.append(token)
            request.num_known += 1
            delta.token_ids.append(token)
            reason = finish_reason(request, token)
            if reason is not None:
                self._end_with(request, delta, token, reason)
        return len(tokens)

    def _end_with(self, request: Request, delta: RequestDelta, token: int, reason: FinishReason) -> None:
        if reason is FinishReason.STOP:
            delta.stop_token_id = stop_token_id(request, token)
        self._kv.publish(request.kv, request.token_ids, request.num_computed)
        self._requests.finish(request, delta, reason)
