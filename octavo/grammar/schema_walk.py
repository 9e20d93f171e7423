"""Walking a JSON schema: which parts are schemas themselves, and how a place in it is called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.grammar.limits import MAX_DEPTH

Path = tuple[str | int, ...]

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_SINGLES = (
    "items",
    "additionalProperties",
    "additionalItems",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_OF_OLD_DRAFTS = ("extends", "disallow", "divisibleBy")
"""Keywords of early drafts, which llguidance would take for names it need not know."""

_PLAIN_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,63}")


def subschemas(schema: Any) -> Iterator[tuple[Path, Any]]:
    """The schemas right inside a schema, with their places."""
    if not isinstance(schema, dict):
        return
    for keyword in _MAPS:
        inner = schema.get(keyword)
        if isinstance(inner, dict):
            yield from (((keyword, name), part) for name, part in inner.items())
    for keyword in (*_LISTS, "items"):
        inner = schema.get(keyword)
        if isinstance(inner, list):
            yield from (((keyword, index), part) for index, part in enumerate(inner))
    singles = ((keyword, schema.get(keyword)) for keyword in _SINGLES)
    yield from (((keyword,), part) for keyword, part in singles if isinstance(part, dict))


def place_name(param: str, path: Path) -> str:
    """('properties', 'x', 'enum', 0) within a parameter -> param.properties.x.enum[0]."""
    name = param
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        elif _PLAIN_NAME.fullmatch(part):
            name += f".{part}"
        else:
            name += f"[{json.dumps(part[:40])}]"
    return name


def check_shape(schema: dict[str, Any], param: str) -> None:
    """Refuse what is nested too deep to be walked, and keywords of drafts nobody here knows."""
    level: list[tuple[Path, Any]] = [((), schema)]
    for _ in range(MAX_DEPTH):
        level = [(path + step, part) for path, node in level for step, part in _children(node, path, param)]
        if not level:
            return
    raise RequestError(f"{param} is nested more than {MAX_DEPTH} deep.", code=ErrorCode.TOO_DEEP, param=param)


def _children(node: Any, path: Path, param: str) -> list[tuple[Path, Any]]:
    if isinstance(node, list):
        return [((index,), part) for index, part in enumerate(node) if isinstance(part, dict | list)]
    is_names = bool(path) and path[-1] in _MAPS
    for name in () if is_names else _OF_OLD_DRAFTS:
        if name in node and not (path and path[-1] in ("const", "enum", "default", "examples")):
            place = place_name(param, (*path, name))
            raise RequestError(
                f"{place}: the keyword {name} is not supported; use a newer one.",
                code=ErrorCode.UNSUPPORTED_VALUE,
                param=place,
            )
    return [((name,), part) for name, part in node.items() if isinstance(part, dict | list)]


def closed(schema: Any) -> Any:
    """The schema with additionalProperties false where an object names properties and says no more."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: _closed_part(name, part) for name, part in schema.items()}
    if "properties" in copy and not {"additionalProperties", "patternProperties"} & copy.keys():
        copy["additionalProperties"] = False
    return copy


def _closed_part(name: str, part: Any) -> Any:
    if name in _MAPS and isinstance(part, dict):
        return {key: closed(inner) for key, inner in part.items()}
    return closed(part) if name in _LISTS or name in _SINGLES else part
