"""The order in which requests wait: by rank, or in turns of tenants (fair_queue.py).

A rank never changes, so a preempted request comes back in front of all that arrived after it in its
class, whoever else went or came in between.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from typing import Protocol

from octavo.core.request import Rank, Request


class WaitingQueue(Protocol):
    """What the scheduler asks of any order."""

    def narrow(self, requests: Collection[Request] | None) -> None:
        """Admit only these for now; None: everybody."""

    def push(self, request: Request) -> None: ...

    def peek(self) -> Request | None:
        """The request to admit next."""

    def remove(self, request: Request) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]: ...


def first_of(requests: Iterator[Request]) -> Request | None:
    """By rank."""
    return min(requests, key=lambda request: request.rank, default=None)


class RankedQueue:
    """A heap with late deletion: O(log n), so that thousands may wait."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Request]] = []
        self._requests: dict[str, Request] = {}
        self._only: Collection[Request] | None = None

    def narrow(self, requests: Collection[Request] | None) -> None:
        self._only = requests

    def push(self, request: Request) -> None:
        self._requests[request.request_id] = request
        heapq.heappush(self._heap, (request.rank, request))

    def peek(self) -> Request | None:
        """The request to admit next."""
        if self._only is not None:
            return first_of(request for request in self._only if request in self)
        heap = self._heap
        while heap and self._requests.get(heap[0][1].request_id) is not heap[0][1]:
            heapq.heappop(heap)
        return heap[0][1] if heap else None

    def remove(self, request: Request) -> None:
        del self._requests[request.request_id]
        # The heap's entry is dropped when it comes to the top, or now if the dead outnumber the living.
        if len(self._heap) > 2 * len(self._requests) + 16:
            self._heap = [(waiting.rank, waiting) for waiting in self._requests.values()]
            heapq.heapify(self._heap)

    def __contains__(self, request: Request) -> bool:
        return request.request_id in self._requests

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """All that wait, next one first."""
        return iter(sorted(self._requests.values(), key=lambda request: request.rank))
