"""Ollama's messages -> those of a chat body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.ollama.schema.chat import OllamaMessage


def chat_messages(messages: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    """The same conversation. Calls without an id get one, and their results find them again."""
    calls = _Calls()
    return [_message(message, f"messages[{i}]", calls) for i, message in enumerate(messages)]


def check_no_images(images: list[Any] | None, param: str) -> None:
    if images:
        raise RequestError(
            f"{param}: this server takes no images; send text.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=param,
        )


class _Calls:
    """Calls of the conversation so far whose results have not come."""

    def __init__(self) -> None:
        self._num_made = 0
        self._open: list[tuple[str, str]] = []
        """(name, id)"""

    def open(self, name: str, given_id: str | None) -> str:
        """The id of a call: its own, or a new one."""
        call_id = given_id or f"call_{self._num_made}"
        self._num_made += 1
        self._open.append((name, call_id))
        return call_id

    def close(self, name: str | None) -> str | None:
        """The id that a result is for: the first open call of that name, or of any if it has none."""
        for entry in self._open:
            if name is None or entry[0] == name:
                self._open.remove(entry)
                return entry[1]
        return None


def _message(message: OllamaMessage, where: str, calls: _Calls) -> dict[str, Any]:
    check_no_images(message.images, f"{where}.images")
    plain: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.thinking:
        plain["reasoning_content"] = message.thinking
    if message.tool_calls:
        plain["tool_calls"] = [
            {
                "id": calls.open(call.function.name, call.id),
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": msgspec.json.encode(call.function.arguments).decode(),
                },
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        call_id = calls.close(message.tool_name)
        plain["tool_call_id"] = message.tool_call_id or call_id
        plain["name"] = message.tool_name
    return plain
