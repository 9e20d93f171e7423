"""LiveRequests: every request of a core from its arrival to its end, which takes back all that it held."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.base.clock import Clock
from octavo.base.errors import ErrorCode
from octavo.core.admission import check_request
from octavo.core.deadlines import Deadlines
from octavo.core.policy import make_rank
from octavo.core.request import Request
from octavo.core.scheduler import Scheduler
from octavo.core.trials import Trials
from octavo.messages.request import EngineRequest
from octavo.messages.result import FinishReason, RequestDelta


class LiveRequests:
    """By id. The scheduler knows who of them waits and who runs."""

    def __init__(
        self, scheduler: Scheduler, trials: Trials, *, policy: str, max_request_tokens: int, clock: Clock
    ) -> None:
        self.by_id: dict[str, Request] = {}
        self.max_request_tokens = max_request_tokens
        self._scheduler = scheduler
        self._kv = scheduler.kv
        self._trials = trials
        self._policy = policy
        self._clock = clock
        self._deadlines = Deadlines()
        self._num_added = 0
        self._block_seconds: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, message: EngineRequest) -> Request:
        """RequestError if it is malformed or can never fit."""
        assert message.request_id not in self.by_id, f"request id {message.request_id} is in use"
        check_request(message, self.max_request_tokens)
        self._kv.expire_pins(self._clock())
        rank = make_rank(self._policy, message.priority, self._num_added)
        self._num_added += 1
        vectors = message.prompt_vectors
        holding = self._kv.open(
            message.request_id, message.cache_salt, None if vectors is None else vectors.digest
        )
        request = Request(message, rank, holding)
        self.by_id[message.request_id] = request
        self._deadlines.add(request)
        self._scheduler.add(request)
        return request

    def abort(self, request_ids: Iterable[str]) -> list[RequestDelta]:
        """End these. Unknown ids are ignored."""
        found = [self.by_id[request_id] for request_id in request_ids if request_id in self.by_id]
        deltas = []
        for request in dict.fromkeys(found):
            delta = _delta(request)
            self.finish(request, delta, FinishReason.ABORT)
            deltas.append(delta)
        return deltas

    def expire(self, now: float) -> list[RequestDelta]:
        """End requests whose deadline has passed, before anything more is computed for them."""
        deltas = []
        for request in self._deadlines.due(now):
            num_tokens = len(request.token_ids) - request.num_prompt
            state = (
                "it still waited" if request.first_scheduled is None else f"{num_tokens} tokens were there"
            )
            message = f"The deadline of this request passed when {state}."
            deltas.append(self.fail(request, message, ErrorCode.DEADLINE_EXCEEDED))
        return deltas

    def fail(self, request: Request, message: str, code: ErrorCode | None = None) -> RequestDelta:
        """End it with an error; ENGINE_FAILED unless a code says otherwise."""
        delta = _delta(request)
        delta.error = message
        delta.error_code = None if code is None else code.name
        self.finish(request, delta, FinishReason.ERROR)
        return delta

    def finish(self, request: Request, delta: RequestDelta, reason: FinishReason) -> None:
        """End it with `delta`, which is completed."""
        delta.finish_reason = reason
        delta.timing = request.timing
        self._trials.clear(request)
        self._scheduler.remove(request)
        tenant = request.message.terms.tenant
        self._block_seconds[tenant] = self._block_seconds.get(tenant, 0.0) + request.kv.block_seconds
        self._deadlines.forget(request)
        del self.by_id[request.request_id]

    def take_block_seconds(self) -> dict[str, float]:
        """By tenant, of those that ended since this was last asked."""
        taken, self._block_seconds = self._block_seconds, {}
        return taken


def _delta(request: Request) -> RequestDelta:
    return RequestDelta(
        request_id=request.request_id,
        token_ids=[],
        num_cached_tokens=request.num_cached,
        num_preemptions=request.num_preemptions,
    )
