"""EngineCore: the loop of schedule, submit, collect and update, and what happens when a step fails.

A state machine: time comes from a clock, work goes to an executor; nothing else is touched. Not
thread-safe; one thread calls it. `step()` is the hot path.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import (
    ConfigError,
    DeviceBroken,
    DeviceOutOfMemory,
    EngineError,
    ErrorCode,
    OctavoError,
)
from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig
from octavo.core.admission import check_request
from octavo.core.answer import check_answer, gather_prompt_logprobs
from octavo.core.deadlines import Deadlines
from octavo.core.finish import finish_reason, stop_token_id
from octavo.core.in_flight import StepRecord
from octavo.core.kv.block import Holding
from octavo.core.kv.manager import KVCacheManager
from octavo.core.kv.plan import max_request_tokens
from octavo.core.ledger import check_ledger
from octavo.core.policy import make_budget, make_limits, make_rank, make_waiting
from octavo.core.ports import Executor
from octavo.core.probe import PROBE_ID, probe_like
from octavo.core.request import Request, State
from octavo.core.rows import Rows
from octavo.core.scheduler import Scheduler
from octavo.core.trials import Trials
from octavo.messages.kv import KVPlan
from octavo.messages.request import EngineRequest
from octavo.messages.result import CoreStats, FinishReason, RequestDelta, StepOutput

log = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3
"""So many requests in a row failed alone, and the executor has to show that it works at all."""


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
        self._policy = schedule.scheduling_policy
        self.executor = executor
        self._clock = clock
        self._depth = depth
        self._requests: dict[str, Request] = {}
        self._deadlines = Deadlines()
        self._in_flight: deque[StepRecord] = deque()
        self._num_added = 0
        self._num_steps = 0
        self._step_tokens = 0
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._block_seconds: dict[str, float] = {}
        self._failed_in_a_row = 0
        self._collected_at = clock()
        self._trials = Trials()
        self._probe: Request | None = None
        self.num_collected = 0
        """Steps that came back, or failed: the stats have changed since it was less."""

    def add(self, message: EngineRequest) -> None:
        """Take a request. RequestError if it is malformed or can never fit."""
        assert message.request_id not in self._requests, f"request id {message.request_id} is in use"
        check_request(message, self.max_request_tokens)
        self._kv.expire_pins(self._clock())
        rank = make_rank(self._policy, message.priority, self._num_added)
        self._num_added += 1
        vectors = message.prompt_vectors
        holding = self._kv.open(
            message.request_id, message.cache_salt, None if vectors is None else vectors.digest
        )
        request = Request(message, rank, holding)
        self._requests[message.request_id] = request
        self._deadlines.add(request)
        self._scheduler.add(request)

    def abort(self, request_ids: Iterable[str]) -> list[RequestDelta]:
        """End these requests and take back all they hold, now. Unknown ids are ignored."""
        found = [self._requests[request_id] for request_id in request_ids if request_id in self._requests]
        deltas = []
        for request in dict.fromkeys(found):
            delta = _delta(request)
            self._finish(request, delta, FinishReason.ABORT)
            deltas.append(delta)
        return deltas

    def has_work(self) -> bool:
        """step() has something to do, if only to tell the workers of ended rows."""
        return bool(self._requests or self._in_flight) or self._rows.has_ended

    def step(self) -> list[RequestDelta]:
        """Schedule and submit one step; collect the oldest one when enough are in flight.

        Raises EngineError when requests fail one after the other, and then a probe too: the process should
        be started anew; requests still held can go on in another core.
        """
        now = self._clock()
        return [*self._expire(now), *self._step(now)]

    def _step(self, now: float) -> list[RequestDelta]:
        if self._trials.is_open:
            self._hold_trial()
        record = self._scheduler.schedule(self._num_steps + 1, now)
        if record is not None:
            self._num_steps += 1
            self._in_flight.append(record)
            try:
                self.executor.submit(record.output)
            except Exception as error:
                self._in_flight.pop()
                return self._fail_step([record], error)
        if not self._in_flight or (record is not None and len(self._in_flight) < self._depth):
            return []
        deltas = self._collect()
        return deltas if self._probe is None else self._without_probe(deltas)

    def _expire(self, now: float) -> list[RequestDelta]:
        """End requests whose deadline has passed, before anything more is computed for them."""
        deltas = []
        for request in self._deadlines.due(now):
            num_tokens = len(request.token_ids) - request.num_prompt
            state = (
                "it still waited" if request.first_scheduled is None else f"{num_tokens} tokens were there"
            )
            delta = self._error(request, f"The deadline of this request passed when {state}.")
            delta.error_code = ErrorCode.DEADLINE_EXCEEDED.name
            deltas.append(delta)
        return deltas

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
        taken, self._block_seconds = self._block_seconds, {}
        return taken

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
        check_ledger(self._requests, self._scheduler, self._in_flight)

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
            return [] if record.is_void else self._fail_step([record, *self._in_flight], error)
        if record.is_void:
            return []
        self._failed_in_a_row = 0
        now = self._clock()
        # Steps in flight run one after the other: what counts is the time since the one before.
        self._budget.step_took(record, now - max(record.began, self._collected_at))
        self._collected_at = now
        self._step_tokens = record.num_tokens
        return self._update(record, output, now)

    def _update(self, record: StepRecord, output: StepOutput, now: float) -> list[RequestDelta]:
        """Append what was sampled, apply the stop rules, end what is over."""
        deltas = self._fail_rows(record, output.failed) if output.failed else []
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
        self._finish(request, delta, reason)

    def _finish(self, request: Request, delta: RequestDelta, reason: FinishReason) -> None:
        delta.finish_reason = reason
        delta.timing = request.timing
        self._trials.clear(request)
        self._scheduler.remove(request)
        tenant = request.message.terms.tenant
        self._block_seconds[tenant] = self._block_seconds.get(tenant, 0.0) + request.kv.block_seconds
        self._deadlines.forget(request)
        del self._requests[request.request_id]

    def _fail_rows(self, record: StepRecord, failed: dict[int, str]) -> list[RequestDelta]:
        """End requests whose own result is unusable; start those again that may have read their blocks."""
        places = record.places()
        owners: set[Holding] = set()
        deltas = []
        for row, message in failed.items():
            request = record.requests[places[row]]
            # Who started again since then may even have done so on the blocks that this step spoiled.
            owners.add(request.kv)
            if record.is_wanted_by(request):
                self._kv.withdraw_own(request.kv)
                deltas.append(self._error(request, message))
        since = [record, *self._in_flight]
        if any(owner in owners for step in since for owner, _ in step.published):
            # Only who entered on cached blocks since then can have met theirs. Rare: no closer look.
            readers = [r for step in since for r in step.after_hit if r.state is not State.FINISHED]
            owners.update(request.kv for request in readers)
            for step in since:
                self._kv.withdraw(block for owner, block in step.published if owner in owners)
            self._restart(readers, since)
        return deltas

    def _fail_step(self, lost: list[StepRecord], error: Exception) -> list[RequestDelta]:
        """A step brought nothing: find out whose fault it is, or try smaller steps if it was too large.

        lost: the step and all that were submitted after it. Those are dropped and repeated.
        """
        for step in lost:
            step.is_void = True
            self._kv.withdraw(block for _, block in step.published)
        deltas = []
        is_broken = isinstance(error, DeviceBroken)
        if not is_broken and not self._shrinks_steps(lost[0], error):
            deltas = self._blame(lost[0], error)
        # All in flight: tokens of steps before a lost one are lost to a request that starts again, too.
        again = [request for step in lost for request in step.live_requests()]
        self._restart(again, [*lost, *self._in_flight])
        for step in lost:
            self._rows.tell_again(step.output.ended_rows)
        if is_broken:
            raise error
        if self._probe is not None and self._probe.state is State.FINISHED:
            raise EngineError(
                f"{self._failed_in_a_row} steps failed in a row; the engine has to be started anew."
            ) from error
        return deltas

    def _shrinks_steps(self, record: StepRecord, error: Exception) -> bool:
        """The step ran out of memory and a smaller one can be made of it."""
        is_smallest = len(record.requests) <= 1 and (record.num_tokens <= 1 or self._scheduler.is_whole)
        if not isinstance(error, DeviceOutOfMemory) or is_smallest:
            return False
        self._budget.shrink(record.num_tokens)
        return True

    def _blame(self, record: StepRecord, error: Exception) -> list[RequestDelta]:
        """End the one whose step failed; of several, find out who it was."""
        suspects = record.live_requests()
        if len(record.requests) > 1:  # Also who has left since then may have been it.
            log.warning("step %d failed: its %d requests are tried apart", record.output.step, len(suspects))
            log.debug("step %d failed", record.output.step, exc_info=error)
            self._trials.suspect(suspects)
            return []
        log.error("step %d failed", record.output.step, exc_info=error)
        self._failed_in_a_row += 1
        reason = error.message if isinstance(error, OctavoError) else "The worker could not compute it."
        message = f"The step that held this request failed: {reason} Send the request again."
        deltas = [self._error(request, message) for request in suspects]
        if suspects and self._probe is None and self._failed_in_a_row >= MAX_FAILED_STEPS:
            self.add(probe_like(suspects[0].message))
            self._probe = self._requests[PROBE_ID]
            self._trials.suspect([self._probe])
        return deltas

    def _without_probe(self, deltas: list[RequestDelta]) -> list[RequestDelta]:
        """Nobody asked for its answer. That there is one shows that the executor works."""
        assert self._probe is not None
        if self._probe.state is State.FINISHED:
            self._probe = None
        return [delta for delta in deltas if delta.request_id != PROBE_ID]

    def _hold_trial(self) -> None:
        """Let only those run who are tried now. Everybody else waits, with all tokens."""
        group, is_new = self._trials.next_group()
        if is_new:
            self._scheduler.waiting.narrow(group)
        if is_new and group is not None:
            self._restart(list(self._scheduler.running), list(self._in_flight))

    def _restart(self, requests: list[Request], since: list[StepRecord]) -> None:
        unique = dict.fromkeys(requests)
        for step in since:
            step.forget(unique.keys())
        self._scheduler.restart(list(unique))

    def _error(self, request: Request, message: str) -> RequestDelta:
        delta = _delta(request)
        delta.error = message
        self._finish(request, delta, FinishReason.ERROR)
        return delta


def _delta(request: Request) -> RequestDelta:
    return RequestDelta(
        request_id=request.request_id,
        token_ids=[],
        num_cached_tokens=request.num_cached,
        num_preemptions=request.num_preemptions,
    )
