"""The ledger's proof: everything handed out is held by a live request, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from octavo.base.errors import EngineError
from octavo.core.in_flight import StepRecord
from octavo.core.request import Request, State
from octavo.core.scheduler import Scheduler


def check_ledger(
    requests: Mapping[str, Request], scheduler: Scheduler, in_flight: Iterable[StepRecord]
) -> None:
    """Raise EngineError if a block, a row or a request is lost, doubled or in the wrong place."""
    _check_places(requests, scheduler)
    _check_counts(requests, in_flight)
    scheduler.rows.check({request.row: request.request_id for request in scheduler.running})
    scheduler.kv.check(request.kv for request in requests.values())


def _check_places(requests: Mapping[str, Request], scheduler: Scheduler) -> None:
    places = Counter(request.request_id for request in (*scheduler.running, *scheduler.waiting))
    if places != Counter(requests.keys()):
        raise EngineError(f"Requests are in these places: {dict(places)}; live are {list(requests)}.")
    if any(request.state is not State.RUNNING for request in scheduler.running):
        raise EngineError("A request that does not run is among the running ones.")
    for request in scheduler.waiting:
        if request.state not in (State.WAITING, State.PREEMPTED) or request.kv.tables or request.row != -1:
            raise EngineError(f"{request.request_id} waits and still holds something.")
    ranks = [request.rank for request in scheduler.running]
    if ranks != sorted(ranks):
        raise EngineError("Running requests are out of order.")


def _check_counts(requests: Mapping[str, Request], in_flight: Iterable[StepRecord]) -> None:
    owed = Counter(
        request.request_id
        for record in in_flight
        for request in record.sampling.values()
        if request is not None
    )
    for request in requests.values():
        computed, known = request.num_computed, request.num_known
        if not 0 <= computed < known or (request.kv.tables and computed > request.kv.capacity):
            raise EngineError(
                f"{request.request_id} knows {known} tokens, has computed {computed}, "
                f"has room for {request.kv.capacity}."
            )
        if request.num_in_flight != owed[request.request_id]:
            raise EngineError(
                f"{request.request_id} waits for {request.num_in_flight} tokens that nobody owes it."
            )
