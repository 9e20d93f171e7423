"""Scheduler: decides who computes how many tokens in a step. The order of work and nothing else.

There are no phases: a request has tokens it knows and tokens it has computed, and a step closes the
gap. What may lower a gap is a limit (`limits.py`); who gets blocks is the KV manager's. Runs per step.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence

from octavo.core.in_flight import StepRecord
from octavo.core.kv.manager import KVCacheManager
from octavo.core.limits import Limit, WholePrompt
from octavo.core.queues import WaitingQueue
from octavo.core.request import Request, State
from octavo.core.rows import Rows
from octavo.core.step_budget import StepBudget
from octavo.messages.step import NewRow


class Scheduler:
    """Owns the state of requests: who waits, who runs, on which row.

    `running` is sorted by importance. A step visits it in that order, and victims of preemption come
    only from the part not yet visited: what is placed in a step is never taken out again. The first
    running request can always take what it needs, as admission made sure that it fits alone; so some
    request moves in every step.
    """

    def __init__(
        self,
        *,
        budget: StepBudget,
        limits: Sequence[Limit],
        waiting: WaitingQueue,
        rows: Rows,
        kv: KVCacheManager,
    ) -> None:
        self.running: list[Request] = []
        self.waiting = waiting
        self.rows = rows
        self.kv = kv
        self.num_preemptions = 0
        self.prefix_queries_tokens = 0
        self.prefix_hits_tokens = 0
        self.budget = budget
        self._caps: list[Callable[[Request, int, int], int]] = [limit.cap for limit in limits]
        self._single_caps: list[Callable[[Request, int, int], int]] = [
            limit.cap for limit in limits if limit.bounds_single_tokens
        ]
        self.is_whole = any(isinstance(limit, WholePrompt) for limit in limits)
        """Prompts are not spread over steps."""
        self._commits = [limit.commit for limit in limits if type(limit).commit is not Limit.commit]
        self._is_short = False
        """In this step somebody was preempted or got no blocks: nobody new comes in."""

    def add(self, request: Request) -> None:
        self.waiting.push(request)

    def schedule(self, step: int, now: float) -> StepRecord | None:
        """Decide one step. Computed counts move now; None when there is nothing to tell the workers."""
        record = StepRecord(step)
        self.kv.journal = record.published
        self._is_short = False
        record.began = now
        tokens = self.budget.for_step(record, self.running)
        left = self._schedule_running(record, tokens)
        if not self._is_short:
            left = self._admit_waiting(record, left, now)
        record.num_tokens = tokens - left
        record.output.ended_rows.extend(self.rows.take_ended())
        if not record.requests and not record.output.ended_rows:
            return None
        return record

    def remove(self, request: Request) -> None:
        """The request is over, in whatever state it was: take back all it holds."""
        if request.state is State.RUNNING:
            self.running.remove(request)
            self._take_back(request)
        else:
            self.waiting.remove(request)
        request.state = State.FINISHED

    def restart(self, requests: Sequence[Request]) -> None:
        """Let requests compute again from what is known for sure; tokens in flight are lost to them."""
        for request in requests:
            if request.state is State.RUNNING:
                self.running.remove(request)
                self._to_waiting(request)
            request.num_known = len(request.token_ids)

    def _schedule_running(self, record: StepRecord, budget: int) -> int:
        running = self.running
        caps, single_caps, no_blocks = self._caps, self._single_caps, self.kv.no_blocks
        index = 0
        while index < len(running) and budget > 0:
            request = running[index]
            index += 1
            start = request.num_computed
            want = request.num_known - start
            if want == 1:
                for cap in single_caps:
                    want = cap(request, want, budget)
            else:
                # A long chunk leaves one token for everybody behind it: nobody's stream stalls.
                room = max(1, budget - (len(running) - index))
                for cap in caps:
                    want = cap(request, want, room)
            if want <= 0:
                continue
            if start + want <= request.kv.capacity:
                new_blocks = no_blocks
            else:
                grown = self._grow(request, want, index)
                if grown is None:
                    break
                new_blocks = grown
            self._place(record, request, want, new_blocks)
            budget -= want
        return budget

    def _grow(self, request: Request, want: int, index: int) -> list[list[int]] | None:
        """Blocks for a running request, if need be from those not yet visited: running[index:]."""
        num_tokens = request.num_computed + want
        while True:
            new_blocks = self.kv.grow(request.kv, request.num_computed, num_tokens)
            if new_blocks is not None:
                return new_blocks
            self._is_short = True
            if index == len(self.running):
                # All others are more important: it keeps what it has and waits for them.
                return None
            self._preempt(self.running.pop())

    def _admit_waiting(self, record: StepRecord, budget: int, now: float) -> int:
        while budget > 0 and self.rows.has_free:
            request = self.waiting.peek()
            # A free block for each that runs already: else it would be thrown out again at once.
            reserve = len(self.running) * self.kv.num_groups
            if request is None or request.num_in_flight or self.kv.num_free <= reserve:
                break
            kv = request.kv
            hit = self.kv.find_prefix(kv, request.token_ids, request.max_cached_tokens)
            want = request.num_known - hit.num_tokens
            # A whole prompt is not cut to a budget that was lowered: it may run alone.
            room = self.budget.most if self.is_whole and not record.requests else budget
            for cap in self._caps:
                want = cap(request, want, room)
            if want <= 0 or not self.kv.admit(kv, hit, hit.num_tokens + want, reserve):
                break
            self.waiting.remove(request)
            self._enter(record, request, hit.num_tokens, now)
            self._place(record, request, want, self.kv.no_blocks)
            budget -= want
        return budget

    def _enter(self, record: StepRecord, request: Request, num_cached: int, now: float) -> None:
        request.state = State.RUNNING
        request.num_computed = num_cached
        request.row = self.rows.acquire(request.request_id)
        insort(self.running, request, key=lambda other: other.rank)
        if num_cached:
            record.after_hit.append(request)
        if request.first_scheduled is None:
            request.first_scheduled = now
            request.num_cached = min(num_cached, request.num_prompt)
            self.prefix_queries_tokens += request.num_prompt
            self.prefix_hits_tokens += request.num_cached
        message = request.message
        record.output.new_rows.append(
            NewRow(
                row=request.row,
                request_id=request.request_id,
                token_ids=request.token_ids.copy(),
                num_prompt_tokens=request.num_prompt,
                num_computed_tokens=num_cached,
                block_ids=[table.copy() for table in request.kv.tables],
                params=message.params,
                random_key=message.random_key,
                eos_token_ids=message.eos_token_ids,
                prompt_vectors=message.prompt_vectors,
                pooling=message.pooling,
            )
        )

    def _place(self, record: StepRecord, request: Request, granted: int, new_blocks: list[list[int]]) -> None:
        start = request.num_computed
        end = start + granted
        row = request.row
        output = record.output
        output.rows.append(row)
        output.num_tokens.append(granted)
        output.new_blocks.append(new_blocks)
        record.requests.append(request)
        record.starts.append(start)
        request.num_computed = end
        if end == request.num_known:
            request.num_known = end + 1
            record.sampling[row] = request
        if end >= request.kv.publish_at:
            # Steps run in order and each layer writes before it reads, so others may share at once.
            self.kv.publish(request.kv, request.token_ids, end)
        for commit in self._commits:
            commit(request, granted)

    def _preempt(self, request: Request) -> None:
        """Blocks back, to the front of its class. Tokens still in flight will be appended when they come."""
        self.kv.publish(request.kv, request.token_ids, request.num_computed)
        self._to_waiting(request)

    def _to_waiting(self, request: Request) -> None:
        self._take_back(request)
        request.state = State.PREEMPTED
        request.num_computed = 0
        request.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.push(request)

    def _take_back(self, request: Request) -> None:
        self.kv.free(request.kv)
        self.rows.release(request.row)
        request.row = -1
