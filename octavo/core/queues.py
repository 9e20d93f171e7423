"""The order in which requests wait. A preempted request comes back in front of its class."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from octavo.core.request import Request


class WaitingQueue(Protocol):
    """All operations are O(1) or O(log n), so that thousands may wait."""

    def push(self, request: Request) -> None:
        """Add a request that has just arrived."""

    def push_front(self, request: Request) -> None:
        """Add a preempted request. Of several, the least important is pushed first."""

    def peek(self) -> Request | None:
        """The request to admit next."""

    def remove(self, request: Request) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]: ...


class FCFSQueue:
    """First come, first served."""

    def __init__(self) -> None:
        self._requests: OrderedDict[str, Request] = OrderedDict()

    def push(self, request: Request) -> None:
        self._requests[request.request_id] = request

    def push_front(self, request: Request) -> None:
        self._requests[request.request_id] = request
        self._requests.move_to_end(request.request_id, last=False)

    def peek(self) -> Request | None:
        return next(iter(self._requests.values()), None)

    def remove(self, request: Request) -> None:
        del self._requests[request.request_id]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())


class PriorityQueue:
    """Lowest priority number first, then first come. A rank never changes: its front comes by itself."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int], Request]] = []
        self._requests: dict[str, Request] = {}

    def push(self, request: Request) -> None:
        self._requests[request.request_id] = request
        heapq.heappush(self._heap, (request.rank, request))

    def push_front(self, request: Request) -> None:
        self.push(request)

    def peek(self) -> Request | None:
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

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(sorted(self._requests.values(), key=lambda request: request.rank))


def make_queue(policy: str) -> WaitingQueue:
    return PriorityQueue() if policy == "priority" else FCFSQueue()
