"""`input` of a body -> items in their stored form: checked, each with an id, all of kinds we know.

References to items of earlier responses stay as they are here; `history.py` looks them up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.openai.responses.ids import input_item_id
from octavo.server.openai.responses.reply import Item
from octavo.server.render.messages import MAX_MESSAGES

MAX_ID_LENGTH = 64
MAX_NAME_LENGTH = 256
ROLES = ("user", "assistant", "system", "developer")
INPUT_PARTS = {"input_text": "text", "text": "text", "output_text": "text"}
ANSWER_PARTS = {**INPUT_PARTS, "refusal": "refusal"}
"""Type of a part -> the field that holds its text."""


def input_items(value: Any, response_id: str) -> list[Item]:
    """Items of `input`. Raises RequestError with the place of what is wrong."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise _wrong("input", "must be text or a list of items")
    if len(value) > MAX_MESSAGES:
        raise _wrong("input", f"has {len(value)} items; at most {MAX_MESSAGES}")
    items = [_item(item, f"input[{index}]") for index, item in enumerate(value)]
    for index, item in enumerate(items):
        if "id" not in item:
            item["id"] = input_item_id(item["type"], response_id, index)
    return items


def check_arguments(arguments: Any, where: str) -> str:
    """Arguments of a call must be an object in JSON: templates show them as one."""
    text = _string(arguments, where)
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        value = None
    if not isinstance(value, dict):
        raise _wrong(where, "is not a JSON object")
    return text


def _item(value: Any, where: str) -> Item:
    if not isinstance(value, dict):
        raise _wrong(where, "must be an object")
    kind = value.get("type")
    if kind is None:
        kind = "message" if "role" in value else "item_reference"
    check = KINDS.get(kind) if isinstance(kind, str) else None
    if check is None:
        shown = quoted(kind) if isinstance(kind, str) else "of this type"
        raise RequestError(
            f"Items {shown} are not supported; these are: {', '.join(KINDS)}.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.type",
        )
    item = {"type": kind, **check(value, where)}
    given_id = value.get("id")
    if given_id is not None:
        item["id"] = _name(given_id, f"{where}.id", MAX_ID_LENGTH)
    elif kind == "item_reference":
        raise _wrong(f"{where}.id", "is missing")
    return item


def _message(value: Item, where: str) -> Item:
    role = value.get("role")
    if role not in ROLES:
        raise _wrong(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    is_answer = role == "assistant"
    kind = "output_text" if is_answer else "input_text"
    texts = _texts(value.get("content"), f"{where}.content", ANSWER_PARTS if is_answer else INPUT_PARTS)
    parts: list[Item] = [{"type": kind, "text": text} for text in texts]
    if is_answer:
        parts = [{**part, "annotations": []} for part in parts]
    return {"role": role, "content": parts, "status": "completed"}


def _function_call(value: Item, where: str) -> Item:
    return {
        "call_id": _name(value.get("call_id"), f"{where}.call_id"),
        "name": _name(value.get("name"), f"{where}.name"),
        "arguments": check_arguments(value.get("arguments"), f"{where}.arguments"),
        "status": "completed",
    }


def _function_call_output(value: Item, where: str) -> Item:
    output = value.get("output")
    if not isinstance(output, str):
        texts = _texts(output, f"{where}.output", INPUT_PARTS)
        output = [{"type": "input_text", "text": text} for text in texts]
    call_id = _name(value.get("call_id"), f"{where}.call_id")
    return {"call_id": call_id, "output": output, "status": "completed"}


def _reasoning(value: Item, where: str) -> Item:
    summary = _texts(value.get("summary") or [], f"{where}.summary", {"summary_text": "text"})
    content = _texts(value.get("content") or [], f"{where}.content", {"reasoning_text": "text"})
    if value.get("encrypted_content") is not None and not (summary or content):
        raise RequestError(
            f"{where}.encrypted_content was made by another server and cannot be read here. Leave the item "
            "out.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.encrypted_content",
        )
    return {
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [{"type": "reasoning_text", "text": text} for text in content],
    }


def _item_reference(_: Item, __: str) -> Item:
    return {}


KINDS: dict[str, Callable[[Item, str], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    "item_reference": _item_reference,
}


def _texts(value: Any, where: str, kinds: dict[str, str]) -> list[str]:
    """Texts of a string or of a list of parts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise _wrong(where, "must be text or a list of parts")
    return [_part(part, f"{where}[{index}]", kinds) for index, part in enumerate(value)]


def _part(part: Any, where: str, kinds: dict[str, str]) -> str:
    if not isinstance(part, dict):
        raise _wrong(where, "must be an object with a type")
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        shown = quoted(kind) if isinstance(kind, str) else "of this type"
        raise RequestError(
            f"Parts {shown} are not supported here; these are: {', '.join(kinds)}.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.type",
        )
    return _string(part.get(kinds[kind]), f"{where}.{kinds[kind]}")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "must be a string")
    return value


def _name(value: Any, where: str, limit: int = MAX_NAME_LENGTH) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise _wrong(where, f"must be a string of 1 to {limit} characters")
    return value


def _wrong(where: str, what: str) -> RequestError:
    return RequestError(f"{where} {what}.", param=where)
