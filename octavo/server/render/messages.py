"""Messages of a conversation -> the plain dictionaries that chat templates read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.openai.schema.chat import ChatMessage

MAX_MESSAGES = 4096
_DEVELOPER = re.compile(r"""["']developer["']""")
"""A template that compares roles with it. Others have the word in what they tell the model."""


def template_messages(messages: Sequence[ChatMessage], template: str | None) -> list[dict[str, Any]]:
    """Checked messages. 'developer' becomes 'system' where the template does not know the newer name."""
    if not messages:
        raise RequestError("messages is empty; a chat needs at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise RequestError(f"messages has {len(messages)} entries; at most {MAX_MESSAGES}.", param="messages")
    knows_developer = template is not None and _DEVELOPER.search(template) is not None
    return [_message(message, f"messages[{i}]", knows_developer) for i, message in enumerate(messages)]


def _message(message: ChatMessage, where: str, knows_developer: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": _role(message, knows_developer)}
    content = _text(message.content, f"{where}.content")
    has_calls = bool(message.tool_calls or message.function_call)
    if content is None and not (message.role == "assistant" and (has_calls or _reasoning(message))):
        raise RequestError(f"{where}.content is missing; it must be text.", param=f"{where}.content")
    plain["content"] = content
    for name, value in (
        ("name", message.name),
        ("tool_call_id", message.tool_call_id),
        ("reasoning_content", _reasoning(message)),
    ):
        if value is not None:
            plain[name] = value
    if message.tool_calls and message.function_call:
        raise RequestError(
            f"{where}.function_call is the old name of tool_calls; give one of them.",
            param=f"{where}.function_call",
        )
    if message.function_call:
        called = {"type": "function", "function": message.function_call}
        plain["tool_calls"] = [_tool_call(called, where, "function_call")]
    if message.tool_calls:
        plain["tool_calls"] = [
            _tool_call(call, f"{where}.tool_calls[{i}]", "function")
            for i, call in enumerate(message.tool_calls)
        ]
    return plain


def _role(message: ChatMessage, knows_developer: bool) -> str:
    """In the words that templates know."""
    if message.role == "developer" and not knows_developer:
        return "system"
    return "tool" if message.role == "function" else message.role


def _reasoning(message: ChatMessage) -> str | None:
    return message.reasoning if message.reasoning_content is None else message.reasoning_content


def _text(content: Any, where: str) -> str | None:
    """Text of a string or of text parts, which become paragraphs of their own."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a string or a list of parts.", param=where)
    return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise RequestError(f"{where} must be an object with a type.", param=where)
    kind = part.get("type")
    if kind != "text":
        shown = quoted(kind) if isinstance(kind, str) else "of this kind"
        raise RequestError(
            f"Content {shown} is not supported yet; only parts of type 'text' are.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.type",
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise RequestError(f"{where}.text must be a string.", param=f"{where}.text")
    return text


def _tool_call(call: dict[str, Any], where: str, field: str) -> dict[str, Any]:
    """Templates want arguments as an object; OpenAI sends them as JSON text."""
    where = f"{where}.{field}"
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RequestError(f"{where} must be an object with a name.", param=where)
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            name = f"{where}.arguments"
            raise RequestError(f"{name} is not valid JSON.", param=name) from None
    return {**call, "function": {**function, "arguments": arguments}}
