"""Which part of a schema is to blame when llguidance refuses the whole.

llguidance says what is wrong, not where. A part that is refused alone with the same words is where; within
it, the keyword without which it is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from octavo.base.clock import monotonic
from octavo.grammar.schema_walk import Path, subschemas

SEARCH_S = 0.15
"""After so long the place found until then has to do. The same again for the keyword."""

Complaint = Callable[[Any], str | None]
"""What llguidance says of a schema; None if it takes it."""

_NAMED_KEYS = re.compile(r'Unimplemented keys: \["([^"]+)"')
_UNSATISFIABLE = "Unsatisfiable"
_NO_NEWS = (None, "")


def locate(schema: dict[str, Any], complaint: Complaint) -> tuple[Path, str]:
    """(place of the culprit, what is said of it). The schema is one that is refused."""
    deadline = monotonic() + SEARCH_S
    said = complaint(schema) or ""
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}

    def alone(part: Any) -> str | None:
        if not isinstance(part, dict):
            return None
        return complaint({**shared, **part})

    path: Path = ()
    node: Any = schema
    seen: set[Path] = set()
    while monotonic() < deadline:
        target = _referred(schema, node)
        if target is not None and target not in seen and alone(_at(schema, target)) == said:
            seen.add(target)
            path, node = target, _at(schema, target)
            continue
        found = _culprit_within(node, said, alone, deadline)
        if found is None:
            break
        step, node, said = found
        path += step
    return path + _keyword(node, said, alone, monotonic() + SEARCH_S), said


def _referred(root: Any, node: Any) -> Path | None:
    """The place that a local $ref names, if there is one there."""
    reference = node.get("$ref") if isinstance(node, dict) else None
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    path = tuple(unquote(part).replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/"))
    return path if isinstance(_at(root, path), dict) else None


def _at(node: Any, path: Path) -> Any:
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _culprit_within(node: Any, said: str, alone: Complaint, deadline: float) -> tuple[Path, Any, str] | None:
    """The first part that is refused for the same reason, else one that cannot be satisfied either."""
    second: tuple[Path, Any, str] | None = None
    for step, part in subschemas(node):
        if monotonic() > deadline:
            break
        words = alone(part)
        if words in _NO_NEWS:
            continue
        assert words is not None, "there is a complaint"
        if words == said:
            return step, part, words
        if second is None and words.startswith(_UNSATISFIABLE) and said.startswith(_UNSATISFIABLE):
            second = step, part, words
    return second


def _keyword(node: Any, said: str, alone: Complaint, deadline: float) -> Path:
    if not isinstance(node, dict):
        return ()
    named = _NAMED_KEYS.search(said)
    if named is not None and named[1] in node:
        return (named[1],)
    # What the words speak of comes first; without its type a schema is nearly always accepted.
    for name in sorted(node, key=lambda name: (name not in said, name == "type")):
        if monotonic() > deadline:
            break
        if alone({key: value for key, value in node.items() if key != name}) is None:
            return (name, *_entry(node, name, alone, deadline))
    return ()


def _entry(node: dict[str, Any], name: str, alone: Complaint, deadline: float) -> Path:
    """The one name in a map of names without which the rest is accepted."""
    entries = node[name]
    if name != "patternProperties" or not isinstance(entries, dict):
        return ()
    for entry in entries:
        if monotonic() > deadline:
            break
        rest = {key: value for key, value in entries.items() if key != entry}
        if alone({**node, name: rest}) is None:
            return (entry,)
    return ()
