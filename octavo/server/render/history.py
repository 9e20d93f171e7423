"""Earlier calls and their results, as the model's template wants them."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

from octavo.server.parsing.formats.contract import ToolFormat
from octavo.server.parsing.output import ID_CHARACTERS

SHORT_ID_LENGTH = 9
_ARGUMENTS = r"(?:\.arguments|\[['\"]arguments['\"]\])\s*"
_JOINED = re.compile(r"\+\s*[\w.\[\]'\"]*?" + _ARGUMENTS + r"(?:\+|-?[}%]\}|\))")
_TAKEN_APART = re.compile(_ARGUMENTS + r"\|")


def fitted_history(
    messages: list[dict[str, Any]], tools: ToolFormat | None, template: str | None
) -> list[dict[str, Any]]:
    """The messages with names at results, short ids where the format needs them, and arguments as text where
    the template does."""
    if not any(message["role"] == "tool" or "tool_calls" in message for message in messages):
        return messages
    names: dict[str, str] = {}
    fitted = []
    takes_text = template is not None and _takes_text_arguments(template)
    for message in messages:
        for call in message.get("tool_calls", ()):
            if isinstance(call.get("id"), str):
                names[call["id"]] = call["function"]["name"]
        message = _with_name(message, names)
        if tools is not None and tools.id_style == "short":
            message = _with_short_ids(message)
        if takes_text:
            message = _with_text_arguments(message)
        fitted.append(message)
    return fitted


@lru_cache(maxsize=64)
def _takes_text_arguments(template: str) -> bool:
    """Most templates write the arguments of earlier calls as JSON themselves; some join them as they are."""
    return _JOINED.search(template) is not None and _TAKEN_APART.search(template) is None


def _with_name(message: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Some templates show which tool a result is from."""
    name = names.get(message.get("tool_call_id", ""))
    if message["role"] != "tool" or name is None or "name" in message:
        return message
    return {**message, "name": name}


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Mistral's templates refuse ids that are not nine letters and digits."""
    if isinstance(message.get("tool_call_id"), str):
        message = {**message, "tool_call_id": _short(message["tool_call_id"])}
    if "tool_calls" in message:
        calls = [
            {**call, "id": _short(call["id"])} if isinstance(call.get("id"), str) else call
            for call in message["tool_calls"]
        ]
        message = {**message, "tool_calls": calls}
    return message


def _short(call_id: str) -> str:
    if len(call_id) == SHORT_ID_LENGTH and call_id.isalnum():
        return call_id
    digest = hashlib.sha256(call_id.encode("utf-8", "replace")).digest()
    return "".join(ID_CHARACTERS[byte % len(ID_CHARACTERS)] for byte in digest[:SHORT_ID_LENGTH])


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _as_text(call["function"].get("arguments"))}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _as_text(arguments: Any) -> str:
    """With the spaces that models write."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
