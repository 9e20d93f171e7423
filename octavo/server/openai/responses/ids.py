"""Ids of responses and of their items. An item's id tells which response holds it."""

from __future__ import annotations

import re

RESPONSE_PREFIX = "resp_"
ITEM_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
_ITEM_ID = re.compile(r"(?:msg|fc|fco|rs)_([0-9a-f]{32})[io][0-9]{1,6}")


def response_id_for(request_id: str) -> str:
    """`request_id` is ours: 32 random hexadecimal digits, so nobody can guess it."""
    return RESPONSE_PREFIX + request_id


def input_item_id(kind: str, response_id: str, number: int) -> str:
    return f"{ITEM_PREFIXES[kind]}_{response_id.removeprefix(RESPONSE_PREFIX)}i{number}"


def output_item_id(kind: str, response_id: str, number: int) -> str:
    return f"{ITEM_PREFIXES[kind]}_{response_id.removeprefix(RESPONSE_PREFIX)}o{number}"


def response_of_item(item_id: str) -> str | None:
    """The response that holds an item, if the id is one of ours."""
    match = _ITEM_ID.fullmatch(item_id)
    return None if match is None else RESPONSE_PREFIX + match[1]
