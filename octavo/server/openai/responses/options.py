"""A Responses body -> the chat body that asks the engine for the same."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.body import validate
from octavo.server.errors import quoted
from octavo.server.openai.responses.body import ReasoningSettings, ResponsesBody, TextFormat
from octavo.server.openai.responses.fields import ELSEWHERE
from octavo.server.openai.responses.settings import summary_wish
from octavo.server.openai.responses.translate import Message
from octavo.server.openai.schema.chat import ChatBody

NOT_PASSED = {
    "model",
    "n",
    "stream",
    "stream_options",
    "user",
    "metadata",
    "store",
    "timings",
} | ELSEWHERE.keys()
"""Fields of both bodies that mean something else there, or nothing."""

RENAMED = (
    (re.compile(r"\bmessages\b(\[\d+\])?(\.\w+(\[\d+\])?)*"), "input"),
    (re.compile(r"\bresponse_format\.json_schema\b"), "text.format"),
    (re.compile(r"\bresponse_format\b"), "text.format"),
    (re.compile(r"\b(max_tokens|max_completion_tokens)\b"), "max_output_tokens"),
    (re.compile(r"\breasoning_effort\b"), "reasoning.effort"),
    (re.compile(r"(?<!\.)\bverbosity\b"), "text.verbosity"),
    (re.compile(r"\btool_choice\.allowed_tools\b"), "tool_choice"),
    (re.compile(r"\b(tools\[\d+\]|tool_choice)\.function\b"), r"\1"),
)
"""Names in errors of a chat body -> the names that the caller knows."""


def check_body(body: ResponsesBody) -> None:
    """Refuse what has another name here, and what cannot be."""
    for name, hint in ELSEWHERE.items():
        if getattr(body, name, None) is not None:
            raise _unsupported(name, f"{name} is no field of a response. {hint}")
    if body.n not in (None, 1):
        raise RequestError(f"n is {body.n}; a response is one answer.", param="n")
    if body.stream_options is not None:
        if not body.wants_stream:
            raise RequestError("stream_options is for streams; set stream to true.", param="stream_options")
        if body.stream_options.include_obfuscation:
            raise _unsupported(
                "stream_options.include_obfuscation",
                "Events are not padded; set include_obfuscation to false.",
            )
    if body.reasoning is not None:
        _check_reasoning(body.reasoning)


def chat_body(body: ResponsesBody, messages: list[Message]) -> ChatBody:
    """The same wishes as a chat body. Log-probabilities need a stream inside: it says which are whose."""
    asked = {name: getattr(body, name) for name in ChatBody.model_fields.keys() & body.model_fields_set}
    document: dict[str, Any] = {name: asked[name] for name in asked.keys() - NOT_PASSED}
    document.update(
        messages=messages,
        stream=body.wants_stream or bool(body.background) or body.wants_logprobs,
        max_completion_tokens=body.max_output_tokens,
        logprobs=True if body.wants_logprobs else None,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        tools=[_chat_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or [])],
    )
    if body.text is not None:
        document["response_format"] = _response_format(body.text.format)
        document["verbosity"] = body.text.verbosity
    return validate({name: value for name, value in document.items() if value is not None}, ChatBody)


@contextmanager
def our_names() -> Generator[None, None, None]:
    """Errors about a chat body that leave this block speak of the Responses body."""
    try:
        yield
    except RequestError as error:
        param = None if error.param is None else _renamed(error.param)
        raise RequestError(_renamed(error.message), code=error.code, param=param) from None


def _renamed(text: str) -> str:
    for pattern, name in RENAMED:
        text = pattern.sub(name, text)
    return text


def _check_reasoning(reasoning: ReasoningSettings) -> None:
    if summary_wish(reasoning) == "concise":
        raise _unsupported(
            "reasoning.summary",
            "reasoning.summary cannot be 'concise': what comes is all that the model thought. Use 'auto'.",
        )
    if reasoning.context not in (None, "auto"):
        raise _unsupported(
            "reasoning.context", "The chat template says which thoughts are shown again; use 'auto'."
        )
    if reasoning.mode not in (None, "standard"):
        raise _unsupported(
            "reasoning.mode", f"reasoning.mode is {quoted(reasoning.mode)}; only 'standard' is."
        )


def _response_format(form: TextFormat | None) -> dict[str, Any] | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object"}
    for name, value in (("name", form.name), ("schema", form.schema_)):
        if value is None:
            raise RequestError(f"text.format.{name} is missing.", param=f"text.format.{name}")
    inner = form.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
    return {"type": "json_schema", "json_schema": inner}


def _chat_tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    """A tool as chat has it; that it names a function well is checked there."""
    kind = tool.get("type")
    if kind != "function":
        shown = quoted(kind) if isinstance(kind, str) else "without a type"
        raise _unsupported(f"{where}.type", f"Tools {shown} are not available here; only 'function' is.")
    known = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in known if key in tool}}


def _unsupported(param: str, message: str) -> RequestError:
    return RequestError(message, code=ErrorCode.UNSUPPORTED_VALUE, param=param)
