"""Stop rules: whether the newest token ends a request. Text-level stops are the engine's."""

from __future__ import annotations

from octavo.core.request import Request
from octavo.messages.result import FinishReason


def finish_reason(request: Request, token: int) -> FinishReason | None:
    """Why the request ends with `token`, just appended; None if it goes on. Runs per token."""
    num_output = len(request.token_ids) - request.num_prompt
    if token in request.end_tokens and num_output >= request.min_tokens:
        return FinishReason.STOP
    if num_output >= request.max_tokens:
        return FinishReason.LENGTH
    return None


def stop_token_id(request: Request, token: int) -> int | None:
    """The token to report as stop reason; end-of-text is not one."""
    return None if token in request.eos_tokens else token
