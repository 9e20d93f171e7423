"""JSON schemas as wishes: read, checked in shape, and given llguidance's options."""

from __future__ import annotations

from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.grammar.schema_walk import check_shape, closed
from octavo.messages.structured import StructuredOutputsParams

SPACES = r"[\x20\x0A\x0D\x09]{1,64}"
"""What may stand between the parts of JSON: enough to indent, and no model can go on with it for ever."""

ANY_OBJECT = {"type": "object"}


def read_object(value: Any, param: str) -> dict[str, Any]:
    """An object, or the JSON text of one."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except RecursionError:
            raise RequestError(f"{param} is nested too deep.", code=ErrorCode.TOO_DEEP, param=param) from None
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise RequestError(f"{param} is not valid JSON: {error}.", param=param) from None
    if not isinstance(value, dict):
        raise RequestError(f"{param} must be an object.", param=param)
    return value


def ready_schema(value: Any, wish: StructuredOutputsParams, param: str) -> dict[str, Any]:
    """The schema as llguidance reads it."""
    schema = read_object(value, param)
    check_shape(schema, param)
    if wish.disable_additional_properties:
        schema = closed(schema)
    return {**schema, "x-guidance": _options(wish)}


def _options(wish: StructuredOutputsParams) -> dict[str, Any]:
    """Strict: a keyword that cannot be kept is an error, and oneOf is never taken for anyOf."""
    options: dict[str, Any] = {"lenient": False, "coerce_one_of": False}
    if wish.disable_any_whitespace:
        return options | {"whitespace_flexible": False}
    return options | {"whitespace_pattern": wish.whitespace_pattern or SPACES}
