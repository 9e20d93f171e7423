"""A body of Anthropic's shape -> the chat body that the engine's side of the server understands."""

from __future__ import annotations

from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.anthropic.body import MessagesBody, PromptBody
from octavo.server.anthropic.messages import Message, MessageList
from octavo.server.anthropic.tools import read_choice, read_tools
from octavo.server.body import validate
from octavo.server.errors import quoted
from octavo.server.openai.schema.chat import ChatBody

EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""Models of others know three levels at most."""

HARMLESS_EDITS = "clear_thinking_"
"""Templates leave out what was thought in earlier turns by themselves."""


def chat_of(body: PromptBody, found: MessageList) -> ChatBody:
    """The whole conversation. max_tokens is left to who renders it and then knows what room there is."""
    return validate(_document(body, found.messages), ChatBody)


def chat_up_to(body: PromptBody, messages: list[Message]) -> ChatBody:
    """A prompt that begins like the one of `body` and ends with `messages`."""
    if not any(message.role == "user" for message in messages):
        messages = [*messages, Message("user", ["."])]  # Many templates refuse to do without.
    document = _document(body, messages)
    document |= {"add_generation_prompt": False, "continue_final_message": False}
    return validate(document, ChatBody)


def _document(body: PromptBody, messages: list[Message]) -> dict[str, Any]:
    _check_context_management(body.context_management)
    is_prefilled = messages[-1].role == "assistant"
    tools = read_tools(body.tools)
    document: dict[str, Any] = {
        "messages": [message.plain() for message in messages],
        "continue_final_message": is_prefilled,
        **read_choice(body.tool_choice, [tool["function"]["name"] for tool in tools]),
        **_thinking(body),
        **_output(body),
    }
    if tools:
        document["tools"] = tools
    if isinstance(body, MessagesBody):
        document |= {
            "stream": body.stream,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "stop": body.stop_sequences,
        }
    return {name: value for name, value in document.items() if value is not None}


def _thinking(body: PromptBody) -> dict[str, Any]:
    """Without a word about it, the model does as it does by default."""
    thinking = body.thinking
    if thinking is None:
        return {}
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        raise RequestError("thinking.budget_tokens is missing.", param="thinking.budget_tokens")
    is_on = thinking.type != "disabled"
    # The two names under which templates know the switch.
    found: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": is_on, "thinking": is_on}}
    if thinking.type == "enabled":
        found["thinking_token_budget"] = thinking.budget_tokens
    return found


def _output(body: PromptBody) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if body.output_config is not None and body.output_config.effort is not None:
        found["reasoning_effort"] = EFFORTS[body.output_config.effort]
    wanted = body.json_format
    if wanted is not None:
        schema = {"name": "output", "schema": wanted.schema_, "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found


def _check_context_management(wish: Any) -> None:
    """What would take something out of the prompt is refused: it has to be done by who knows what matters."""
    if wish is None:
        return
    edits = wish.get("edits", []) if isinstance(wish, dict) else None
    if not isinstance(edits, list):
        raise RequestError(
            "context_management must be an object with a list of edits.", param="context_management"
        )
    for index, edit in enumerate(edits):
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(kind, str) or not kind.startswith(HARMLESS_EDITS):
            param = f"context_management.edits[{index}].type"
            raise RequestError(
                f"{param}: edits of type {quoted(str(kind))} are not supported; leave them out.",
                code=ErrorCode.UNSUPPORTED_VALUE,
                param=param,
            )
