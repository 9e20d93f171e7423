"""JSON from untrusted files: one object or list, bounded, every failure a ModelFileError."""

from __future__ import annotations

import json
from typing import Any

from octavo.base.errors import ModelFileError


def parse_object(data: bytes, what: str, *, unique_keys: bool = False) -> dict[str, Any]:
    """Parse `data` as one JSON object; `what` names it in errors. `unique_keys` refuses repeated keys."""
    value = _parse(data, what, unique_keys=unique_keys)
    if not isinstance(value, dict):
        raise ModelFileError(f"{what} holds a {type(value).__name__}, not a JSON object.")
    return value


def parse_objects(data: bytes, what: str) -> list[dict[str, Any]]:
    """Parse `data` as a list of JSON objects."""
    value = _parse(data, what, unique_keys=False)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ModelFileError(f"{what} has to hold a list of JSON objects.")
    return value


def _parse(data: bytes, what: str, *, unique_keys: bool) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if unique_keys and len(made) != len(pairs):
            seen: set[str] = set()
            repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ModelFileError(f"{what} names {repeated[:200]!r} twice.")
        return made

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=build)
    except ModelFileError:
        raise
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{what} is not UTF-8 at byte {error.start}.") from error
    except RecursionError as error:
        raise ModelFileError(f"{what} is nested too deeply.") from error
    except ValueError as error:
        raise ModelFileError(f"{what} is not valid JSON: {error}.") from error
