"""Arguments that a format writes as bare text -> JSON text, of the type that the tool's schema wants."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from octavo.server.parsing.json_text import MAX_DEPTH, is_json

MAX_UNION = 16
MAX_REFERENCES = 3
UNIONS = ("anyOf", "oneOf", "allOf")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LOOSE_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}


def property_schema(schema: Any, name: str) -> Any:
    """The schema of one argument, None if the tool says nothing about it."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    found = properties.get(name) if isinstance(properties, Mapping) else None
    return _with_definitions(found, schema, 0)


def _with_definitions(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    """The same with the definitions in it that it and its alternatives refer to."""
    if not isinstance(schema, Mapping) or depth > MAX_REFERENCES:
        return schema
    target = _definition(schema.get("$ref"), root)
    if target is not None:
        own = {key: value for key, value in schema.items() if key != "$ref"}
        return _with_definitions({**target, **own}, root, depth + 1)
    unions = {
        key: [_with_definitions(branch, root, depth + 1) for branch in schema[key][:MAX_UNION]]
        for key in UNIONS
        if isinstance(schema.get(key), list)
    }
    return {**schema, **unions} if unions else schema


def _definition(reference: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for part in reference[2:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def types_of(schema: Any, depth: int = 0) -> set[str]:
    """The JSON types a schema allows; none if it does not say."""
    if not isinstance(schema, Mapping) or depth > 4:
        return set()
    declared = schema.get("type")
    types = {declared} if isinstance(declared, str) else set()
    if isinstance(declared, list):
        types |= {entry for entry in declared if isinstance(entry, str)}
    if schema.get("nullable") is True:
        types.add("null")
    for union in UNIONS:
        branches = schema.get(union)
        for branch in branches[:MAX_UNION] if isinstance(branches, list) else ():
            types |= types_of(branch, depth + 1)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if not types and isinstance(values, list) and any(isinstance(value, str) for value in values):
        types.add("string")
    return types


def is_text(schema: Any) -> bool:
    """Whether the argument is a string and nothing else, so that it can be passed on as it comes."""
    return types_of(schema) == {"string"}


def typed(text: str, schema: Any) -> str:
    """JSON text of a bare value. What does not fit the schema stays a string: nothing is lost."""
    types = types_of(schema)
    value = text.strip()
    if "null" in types and value.lower() in ("null", "none"):
        return "null"
    if "string" in types:
        return json.dumps(text, ensure_ascii=False)
    word = _WORDS.get(value.lower())
    if word is not None and (not types or types & {"boolean", "null"}):
        return word
    if not types and _JSON_NUMBER.fullmatch(value):
        return value  # Other ways to write a number may be more than that, such as the zeros of 007.
    number = as_number(value) if types & {"integer", "number"} else None
    if number is not None:
        return number
    if value[:1] in ("{", "[", '"') and _is_shallow(value) and is_json(value):
        return value
    return json.dumps(text, ensure_ascii=False)


def as_number(text: str) -> str | None:
    """A number as JSON writes it, None if the text is none."""
    if _JSON_NUMBER.fullmatch(text):
        return text
    if _LOOSE_NUMBER.fullmatch(text) is None or not text[-1].isascii() or text.endswith("_"):
        return None
    plain = text.replace("_", "")
    digits = plain.lstrip("+-")
    if digits.isdigit():
        sign = "-" if plain.startswith("-") else ""
        return sign + (digits.lstrip("0") or "0")
    number = float(plain)
    return repr(number) if math.isfinite(number) else None


def _is_shallow(text: str) -> bool:
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest <= MAX_DEPTH
