"""Deadlines: which requests have to end by when, the soonest first."""

from __future__ import annotations

import heapq

from octavo.core.request import Request


class Deadlines:
    """A heap with late deletion, like the waiting queue: most requests end long before their deadline."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._requests: dict[str, Request] = {}

    def add(self, request: Request) -> None:
        """Watch it, if it has a deadline."""
        deadline = request.message.terms.deadline
        if deadline is not None:
            self._requests[request.request_id] = request
            heapq.heappush(self._heap, (deadline, request.request_id))

    def forget(self, request: Request) -> None:
        """It ended, in whatever way."""
        if self._requests.pop(request.request_id, None) is None:
            return
        if len(self._heap) > 2 * len(self._requests) + 16:
            self._heap = [entry for entry in self._heap if entry[1] in self._requests]
            heapq.heapify(self._heap)

    def due(self, now: float) -> list[Request]:
        """Those whose time is over. They stay until they are forgotten."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            request = self._requests.get(heapq.heappop(self._heap)[1])
            if request is not None:
                found.append(request)
        return found
