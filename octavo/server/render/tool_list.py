"""Tools told in words, for models whose chat template cannot show them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from octavo.server.render.tools import ToolWish

_INTRODUCTION = "You answer by calling functions. These are the functions, one JSON object per line:\n"
_REQUEST = (
    "\nAnswer only with a call, written as one JSON object: "
    '{"name": <name of the function>, "arguments": <object of its arguments>}'
)


def with_tool_list(
    messages: list[dict[str, Any]], wish: ToolWish, role: Literal["system", "user"] = "system"
) -> list[dict[str, Any]]:
    """The messages with the tools in the system message or, for templates without one, before what the user
    says; earlier calls and results as text."""
    lines = [msgspec.json.encode(document["function"]).decode() for document in wish.documents or ()]
    told = _INTRODUCTION + "\n".join(lines) + _REQUEST
    plain = [_plain(message) for message in messages]
    first = plain[0] if plain else {}
    if first.get("role") != role:
        return [{"role": role, "content": told}, *plain]
    parts = [first.get("content") or "", told]
    return [{**first, "content": "\n\n".join(parts if role == "system" else parts[::-1])}, *plain[1:]]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Such templates know neither calls nor results."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result of the call:\n{message.get('content') or ''}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = [
        msgspec.json.encode(
            {"name": call["function"]["name"], "arguments": call["function"].get("arguments")}
        ).decode()
        for call in calls
    ]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, [message.get("content"), *written]))}
