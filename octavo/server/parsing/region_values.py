"""What stands in a region of a `response_template` -> calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from octavo.server.parsing.arguments import typed

PLACEHOLDER = re.compile(r"\{(\w+(?:\.\w+)*)\}")
TIMEOUT_S = 0.2
MAX_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class ContentRule:
    """How a region's text becomes a value."""

    content: str
    options: Mapping[str, Any]
    transform: Any
    is_each: bool


def calls_in(body: str, rule: ContentRule, captures: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """(name, JSON text of the arguments) of each call; None if the text is no call."""
    try:
        value = _parsed(body, rule.content, rule.options, 0)
        if rule.transform is not None:
            value = _transformed(value, rule, captures)
    except (ValueError, KeyError, TypeError, RecursionError, TimeoutError, regex.error):
        return None
    calls = [_call(entry) for entry in (value if isinstance(value, list) else [value])]
    return None if None in calls or not calls else [call for call in calls if call is not None]


def _call(value: Any) -> tuple[str, str] | None:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return None
    name = function.get("name")
    if not isinstance(name, str) or not name:
        return None
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        return name, arguments or "{}"
    return name, json.dumps({} if arguments is None else arguments, ensure_ascii=False)


def _transformed(value: Any, rule: ContentRule, captures: Mapping[str, str]) -> Any:
    if not rule.is_each:
        return _filled(rule.transform, {**captures, "content": value}, 0)
    if not isinstance(value, list):
        raise ValueError("a list was expected")
    return [_filled(rule.transform, {**captures, **entry}, 0) for entry in value]


def _filled(transform: Any, values: Mapping[str, Any], depth: int) -> Any:
    """The transform with its placeholders replaced."""
    if depth > MAX_DEPTH:
        raise ValueError("the transform is nested too deep")
    if isinstance(transform, dict):
        return {key: _filled(item, values, depth + 1) for key, item in transform.items()}
    if isinstance(transform, list):
        return [_filled(item, values, depth + 1) for item in transform]
    match = PLACEHOLDER.fullmatch(transform) if isinstance(transform, str) else None
    if match is None:
        return transform
    found: Any = values
    for key in match[1].split("."):
        found = found[key]
    return found


def _parsed(text: str, kind: str, options: Mapping[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("the content is nested too deep")
    if kind == "json":
        return _json(text, options)
    if kind == "xml-inline":
        return _tags(text, options, depth)
    if kind == "kv-lines":
        return _lines(text, options, depth)
    plain = text.strip() if options.get("strip", True) else text
    if kind in ("int", "float", "bool"):
        return json.loads(typed(plain, {"type": {"int": "integer", "float": "number"}.get(kind, "boolean")}))
    return plain


def _json(text: str, options: Mapping[str, Any]) -> Any:
    """JSON, maybe with strings between other marks and keys without quotes."""
    strings: list[str] = []

    def keep(match: re.Match[str]) -> str:
        strings.append(json.dumps(match[1], ensure_ascii=False))
        return f"\x01{len(strings) - 1}\x02"

    plain = text.replace("\x01", "").replace("\x02", "")
    for opening, closing in options.get("string_delims") or ():
        plain = re.sub(re.escape(opening) + r"([\s\S]*?)" + re.escape(closing), keep, plain)
    if options.get("unquoted_keys"):
        plain = re.sub(r"(?<=[{,])(\s*)(\w+):", r'\1"\2":', plain)
    plain = re.sub("\x01(\\d+)\x02", lambda match: strings[int(match[1])], plain)
    try:
        return json.loads(plain, strict=False)
    except ValueError:
        if options.get("allow_non_json"):
            return text.strip()
        raise


def _tags(text: str, options: Mapping[str, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for match in regex.finditer(options["tag_pattern"], text, flags=regex.DOTALL, timeout=TIMEOUT_S):
        groups = match.groupdict()
        key, value = groups["key"], _inner(groups.get("value") or "", options, depth)
        if key in found and options.get("merge_duplicates"):
            before = found[key]
            found[key] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            found[key] = value
    return found


def _lines(text: str, options: Mapping[str, Any], depth: int) -> dict[str, Any]:
    separator = options.get("kv_sep", ":")
    found = {}
    for line in text.split(options.get("line_sep", "\n")):
        key, mark, value = line.partition(separator)
        if mark:
            found[key.strip()] = _inner(value.strip(), options, depth)
    return found


def _inner(text: str, options: Mapping[str, Any], depth: int) -> Any:
    parser = options.get("value_parser")
    if not isinstance(parser, Mapping):
        return text
    return _parsed(text, parser.get("name", "text"), parser.get("args") or {}, depth + 1)
