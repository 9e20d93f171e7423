"""FailedSteps: whose fault it is that a step brought nothing, and who starts again."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from octavo.base.errors import DeviceBroken, DeviceOutOfMemory, EngineError, ErrorCode, OctavoError
from octavo.core.in_flight import StepRecord
from octavo.core.kv.block import Holding
from octavo.core.live_requests import LiveRequests
from octavo.core.probe import PROBE_ID, probe_like
from octavo.core.request import Request, State
from octavo.core.scheduler import Scheduler
from octavo.core.trials import Trials
from octavo.messages.result import RequestDelta, StepOutput

log = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3
"""So many requests in a row failed alone, and the executor has to show that it works at all."""


class FailedSteps:
    """Ends who is to blame. All others go on, with all their tokens."""

    def __init__(
        self,
        requests: LiveRequests,
        scheduler: Scheduler,
        trials: Trials,
        in_flight: Sequence[StepRecord],
    ) -> None:
        """in_flight: what is submitted and not collected yet, the oldest first, at any time."""
        self._requests = requests
        self._scheduler = scheduler
        self._kv = scheduler.kv
        self._trials = trials
        self._in_flight = in_flight
        self._num_in_a_row = 0
        self._probe: Request | None = None

    def step_worked(self) -> None:
        self._num_in_a_row = 0

    def hold_trial(self) -> None:
        """Let only those run who are tried now. Everybody else waits, with all tokens."""
        group, is_new = self._trials.next_group()
        if is_new:
            self._scheduler.waiting.narrow(group)
        if is_new and group is not None:
            self._restart(list(self._scheduler.running), list(self._in_flight))

    def without_probe(self, deltas: list[RequestDelta]) -> list[RequestDelta]:
        """Nobody asked for its answer. That there is one shows that the executor works."""
        if self._probe is None:
            return deltas
        if self._probe.state is State.FINISHED:
            self._probe = None
        return [delta for delta in deltas if delta.request_id != PROBE_ID]

    def end_rows(self, record: StepRecord, output: StepOutput) -> list[RequestDelta]:
        """End requests whose own result is unusable; start those again that may have read their blocks."""
        places = record.places()
        owners: set[Holding] = set()
        deltas = []
        for row, message in output.failed.items():
            request = record.requests[places[row]]
            # Who started again since then may even have done so on the blocks that this step spoiled.
            owners.add(request.kv)
            if record.is_wanted_by(request):
                self._kv.withdraw_own(request.kv)
                code = ErrorCode.UNSUPPORTED_VALUE if row in output.refused else None
                deltas.append(self._requests.fail(request, message, code))
        since = [record, *self._in_flight]
        if any(owner in owners for step in since for owner, _ in step.published):
            # Only who entered on cached blocks since then can have met theirs. Rare: no closer look.
            readers = [r for step in since for r in step.after_hit if r.state is not State.FINISHED]
            owners.update(request.kv for request in readers)
            for step in since:
                self._kv.withdraw(block for owner, block in step.published if owner in owners)
            self._restart(readers, since)
        return deltas

    def end_step(self, lost: list[StepRecord], error: Exception) -> list[RequestDelta]:
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
            self._scheduler.rows.tell_again(step.output.ended_rows)
        if is_broken:
            raise error
        if self._probe is not None and self._probe.state is State.FINISHED:
            raise EngineError(
                f"{self._num_in_a_row} steps failed in a row; the engine has to be started anew."
            ) from error
        return deltas

    def _shrinks_steps(self, record: StepRecord, error: Exception) -> bool:
        """The step ran out of memory and a smaller one can be made of it."""
        is_smallest = len(record.requests) <= 1 and (record.num_tokens <= 1 or self._scheduler.is_whole)
        if not isinstance(error, DeviceOutOfMemory) or is_smallest:
            return False
        self._scheduler.budget.shrink(record.num_tokens)
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
        self._num_in_a_row += 1
        reason = error.message if isinstance(error, OctavoError) else "The worker could not compute it."
        message = f"The step that held this request failed: {reason} Send the request again."
        deltas = [self._requests.fail(request, message) for request in suspects]
        if suspects and self._probe is None and self._num_in_a_row >= MAX_FAILED_STEPS:
            self._probe = self._requests.add(probe_like(suspects[0].message))
            self._trials.suspect([self._probe])
        return deltas

    def _restart(self, requests: list[Request], since: list[StepRecord]) -> None:
        unique = dict.fromkeys(requests)
        for step in since:
            step.forget(unique.keys())
        self._scheduler.restart(list(unique))
