"""The first state of a response: what was asked for, and with which settings it will be done."""

from __future__ import annotations

import time
from typing import Any

from octavo.server.openai.responses.body import ReasoningSettings, ResponsesBody, TextSettings
from octavo.server.openai.responses.reply import ResponseReply
from octavo.server.serving import Serving


def first_state(
    serving: Serving, body: ResponsesBody, response_id: str, model: str, *, is_kept: bool
) -> ResponseReply:
    """A response that has no output yet."""
    return ResponseReply(
        id=response_id,
        created_at=int(time.time()),
        status="queued" if body.background else "in_progress",
        background=bool(body.background),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=_reasoning(body.reasoning),
        safety_identifier=body.safety_identifier,
        store=is_kept,
        temperature=_effective(serving, "temperature", body.temperature),
        text=_text(body.text),
        tool_choice="auto" if body.tool_choice is None else body.tool_choice,
        tools=[{"parameters": None, "strict": None, **tool} for tool in body.tools or []],
        top_logprobs=body.top_logprobs or 0,
        top_p=_effective(serving, "top_p", body.top_p),
        truncation=body.truncation or "disabled",
        user=body.user,
    )


def summary_wish(settings: ReasoningSettings | None) -> str | None:
    return None if settings is None else settings.summary or settings.generate_summary


def _effective(serving: Serving, name: str, wish: float | None) -> float:
    if wish is not None:
        return wish
    default: float = serving.engine.default_sampling.get(name, 1.0)
    return default


def _reasoning(settings: ReasoningSettings | None) -> dict[str, str | None]:
    return {"effort": settings.effort if settings else None, "summary": summary_wish(settings)}


def _text(settings: TextSettings | None) -> dict[str, Any]:
    form = settings.format if settings else None
    shown: dict[str, Any] = {"type": "text"}
    if form is not None:
        shown = form.model_dump(by_alias=True, exclude_none=True)
    return {"format": shown, "verbosity": (settings.verbosity if settings else None) or "medium"}
