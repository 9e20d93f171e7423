"""Bare text becomes JSON of the type that a schema wants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.server.parsing.arguments import as_number, is_text, property_schema, typed, types_of

STRING, INTEGER, NUMBER, BOOLEAN = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", STRING, "5"),
        ("5", INTEGER, 5),
        ("5", {}, 5),
        ("5", None, 5),
        ("five", INTEGER, "five"),
        ("1e3", NUMBER, 1000.0),
        ("+5", INTEGER, 5),
        ("1_000", INTEGER, 1000),
        (".5", NUMBER, 0.5),
        ("007", INTEGER, 7),
        ("007", {}, "007"),
        ("+491701234", None, "+491701234"),
        ("1_000", {}, "1_000"),
        ("nan", NUMBER, "nan"),
        ("1e999", {"type": ["number"]}, json.loads("1e999")),
        ("true", BOOLEAN, True),
        ("False", BOOLEAN, False),
        ("true", STRING, "true"),
        ("yes", BOOLEAN, "yes"),
        ("null", {"type": ["string", "null"]}, None),
        ("None", {"anyOf": [STRING, {"type": "null"}]}, None),
        ("null", STRING, "null"),
        ("null", {"type": "string", "nullable": True}, None),
        ('{"a": [1]}', {"type": "object"}, {"a": [1]}),
        (" [1, 2] ", {"type": "array"}, [1, 2]),
        ("{'a': 1}", {"type": "object"}, "{'a': 1}"),
        ("{broken", {"type": "object"}, "{broken"),
        ('{"a": NaN}', {"type": "object"}, '{"a": NaN}'),
        ("red", {"enum": ["red", "green"]}, "red"),
        ("5", {"enum": ["5"]}, "5"),
        ("5", {"const": 5}, 5),
        ("", STRING, ""),
        ("", INTEGER, ""),
    ],
)
def test_typed(text: str, schema: Any, value: Any) -> None:
    assert json.loads(typed(text, schema)) == value


@given(
    st.text(), st.sampled_from([None, {}, STRING, INTEGER, NUMBER, BOOLEAN, {"type": "object"}, {"type": 5}])
)
def test_always_json_and_never_lost(text: str, schema: Any) -> None:
    value = json.loads(typed(text, schema))
    if isinstance(value, str) and not text.strip().startswith('"'):
        assert value == text


def test_hostile_values_are_strings() -> None:
    deep = "[" * 100_000
    assert json.loads(typed(deep, {"type": "array"})) == deep
    digits = "9" * 10_000
    assert typed(digits, INTEGER) == digits


def test_schemas_of_any_shape() -> None:
    assert types_of({"type": 5, "anyOf": "x", "enum": 3}) == set()
    assert types_of({"oneOf": [{"type": "integer"}, True, {"type": ["null"]}]}) == {"integer", "null"}
    assert property_schema({"properties": []}, "a") is None
    assert property_schema(None, "a") is None
    assert is_text(STRING) and not is_text({"type": ["string", "null"]}) and not is_text(None)
    nested: Any = {"type": "string"}
    for _ in range(1000):
        nested = {"anyOf": [nested]}
    assert types_of(nested) == set()


def test_numbers() -> None:
    assert [as_number(text) for text in ("-0", "1.5", "--1", "", "1_", "0x10", "١")] == [
        "-0", "1.5", None, None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/code"},
        {"anyOf": [{"$ref": "#/$defs/code"}, {"type": "null"}]},
        {"$ref": "#/$defs/maybe"},
        {"allOf": [{"$ref": "#/$defs/code"}], "description": "A code."},
    ],
)
def test_types_of_definitions_count(schema: Any) -> None:
    definitions = {"code": STRING, "maybe": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/code"}]}}
    tool = {"properties": {"a": schema}, "$defs": definitions}
    assert typed("5", property_schema(tool, "a")) == '"5"'


@pytest.mark.parametrize("reference", ["#/$defs/a", "#/$defs/none", "#/properties/a", "#", "http://x", 5])
def test_definitions_that_lead_nowhere(reference: Any) -> None:
    tool = {"properties": {"a": {"$ref": reference}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert typed("5", property_schema(tool, "a")) == "5"
