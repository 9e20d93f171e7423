"""StepRecord: what the core has to remember of a step between submitting and collecting it."""

from __future__ import annotations

from collections.abc import Container

from octavo.core.kv.manager import Journal
from octavo.core.request import Request, State
from octavo.messages.step import NewRow, SchedulerOutput


class StepRecord:
    """Filled by the scheduler. The lists of `output` are parallel to `requests` and `starts`."""

    __slots__ = (
        "after_hit",
        "began",
        "forgotten",
        "is_void",
        "num_context",
        "num_tokens",
        "output",
        "published",
        "requests",
        "sampling",
        "starts",
    )

    def __init__(self, step: int) -> None:
        new_rows: list[NewRow] = []
        self.output = SchedulerOutput(
            step=step, ended_rows=[], new_rows=new_rows, rows=[], num_tokens=[], new_blocks=[]
        )
        self.requests: list[Request] = []
        self.forgotten: set[Request] = set()
        """Of these, who started again since: they want nothing of this step, but it wrote to their blocks."""
        self.starts: list[int] = []
        """Tokens that each request had computed before."""
        self.sampling: dict[int, Request | None] = {}
        """By row: who gets a token from this step. None: the request wants it no more."""
        self.after_hit: list[Request] = []
        """Requests that entered on cached blocks, perhaps computed in this very step."""
        self.published: Journal = []
        self.num_tokens = 0
        self.num_context = 0
        """Tokens that its rows had computed before, where the budget wants to know."""
        self.began = 0.0
        """When it was scheduled."""
        self.is_void = False
        """A step before this one failed: whatever it brings is dropped."""

    def live_requests(self) -> list[Request]:
        """Whoever still wants something from this step."""
        return [request for request in self.requests if self.is_wanted_by(request)]

    def is_wanted_by(self, request: Request) -> bool:
        return request.state is not State.FINISHED and request not in self.forgotten

    def places(self) -> dict[int, int]:
        """Row -> index in the parallel lists."""
        return {row: index for index, row in enumerate(self.output.rows)}

    def forget(self, requests: Container[Request | None]) -> None:
        """These requests will compute this again: their results are not wanted any more."""
        self.sampling = {row: None if owner in requests else owner for row, owner in self.sampling.items()}
        self.forgotten.update(request for request in self.requests if request in requests)
