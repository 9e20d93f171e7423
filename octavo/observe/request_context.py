"""Which request the current task works for, so that every log line can say it."""

from __future__ import annotations

from contextvars import ContextVar

_current_request: ContextVar[str] = ContextVar("octavo_request_id", default="-")


def current_request_id() -> str:
    """The id of the request this task works for, or '-'."""
    return _current_request.get()


def set_request_id(request_id: str) -> None:
    """From now on this task, and tasks it starts, work for this request."""
    _current_request.set(request_id)
