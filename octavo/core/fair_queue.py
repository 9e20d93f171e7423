"""FairQueue: tenants take turns by what they were given, in tokens and by weight, not by how many ask.

Each tenant has a counter of the work that was done for it, divided by its weight, and the one with the
smallest counter goes next. The counter grows while work is done (prompt tokens count once, output tokens
twice), as in the Virtual Token Counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
2024). Who had nothing waiting begins no lower than the last one whose turn it was, so that nobody saves up
turns while idle: the virtual time of start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996).

Nobody starves: the counter of a tenant that waits stands still, and those of all others grow with each token.
"""

# ruff: noqa: ARG002  (a limit looks only at what concerns it)

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator

from octavo.core.limits import Limit
from octavo.core.queues import RankedQueue, first_of
from octavo.core.request import Request, Share

OUTPUT_COST = 2.0
"""Of an output token, in prompt tokens."""
MAX_IDLE_SHARES = 4096


class FairQueue:
    """Within a tenant requests wait by rank. O(log tenants + log requests)."""

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        self._queues: dict[str, RankedQueue] = {}
        """By tenant; only of those that wait."""
        self._turns: list[tuple[float, str]] = []
        """A heap of the tenants in `_queues`, each once, by a counter that may be out of date: too low."""
        self._virtual_time = 0.0
        self._num_waiting = 0
        self._only: Collection[Request] | None = None

    def narrow(self, requests: Collection[Request] | None) -> None:
        """Admit only these for now; None: everybody."""
        self._only = requests

    def push(self, request: Request) -> None:
        terms = request.message.terms
        share = request.share = self._share(terms.tenant)
        share.weight = terms.weight
        queue = self._queues.get(terms.tenant)
        if queue is None:
            queue = self._queues[terms.tenant] = RankedQueue()
            share.served = max(share.served, self._virtual_time)
            heapq.heappush(self._turns, (share.served, terms.tenant))
        queue.push(request)
        self._num_waiting += 1

    def peek(self) -> Request | None:
        """The request to admit next."""
        if self._only is not None:
            return first_of(request for request in self._only if self._waits(request))
        turns = self._turns
        while turns:
            served, tenant = turns[0]
            queue = self._queues.get(tenant)
            if queue is None or not len(queue):
                heapq.heappop(turns)
                self._queues.pop(tenant, None)
            elif self._shares[tenant].served > served:
                heapq.heapreplace(turns, (self._shares[tenant].served, tenant))
            else:
                self._virtual_time = max(self._virtual_time, served)
                return queue.peek()
        return None

    def remove(self, request: Request) -> None:
        self._queues[request.message.terms.tenant].remove(request)
        self._num_waiting -= 1

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Request]:
        """All that wait, tenant by tenant, whose turn it is first."""
        for tenant in sorted(self._queues, key=lambda tenant: self._shares[tenant].served):
            yield from self._queues[tenant]

    def _waits(self, request: Request) -> bool:
        queue = self._queues.get(request.message.terms.tenant)
        return queue is not None and request in queue

    def _share(self, tenant: str) -> Share:
        share = self._shares.get(tenant)
        if share is None:
            if len(self._shares) >= MAX_IDLE_SHARES:
                self._drop_idle()
            share = self._shares[tenant] = Share()
        return share

    def _drop_idle(self) -> None:
        """Forget counters that would be raised anyway."""
        self._shares = {
            tenant: share
            for tenant, share in self._shares.items()
            if tenant in self._queues or share.served > self._virtual_time
        }


class ShareMeter(Limit):
    """Lowers nothing: notes down for whom the work of each step is done."""

    bounds_single_tokens = False

    def cap(self, request: Request, want: int, budget: int) -> int:
        return want

    def commit(self, request: Request, granted: int) -> None:
        share = request.share
        if share is not None:
            cost = granted if request.num_computed <= request.num_prompt else OUTPUT_COST * granted
            share.served += cost / share.weight
