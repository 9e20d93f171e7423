"""More than 300 JSON schemas: written by hand, made at random, and made to hurt."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

SIMPLE: dict[str, Schema] = {
    "anything": {},
    "object": {"type": "object"},
    "array": {"type": "array", "maxItems": 4},
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "two types": {"type": ["integer", "null"]},
    "five types": {"type": ["string", "boolean", "null", "number", "object"]},
    "const": {"const": {"a": [1, None, "x"]}},
    "const text": {"const": 'quote " and \\ and \n'},
    "enum": {"enum": [1, "a", None, True, {"b": 2}, [3]]},
    "enum of unicode": {"enum": ["é", "日本", "😀", "\u0000", "\u2028"]},
    "bounds": {"type": "integer", "minimum": -3, "maximum": 17},
    "open bounds": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    "float bounds": {"type": "number", "minimum": 0.25, "maximum": 0.75},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 10_000},
    "length": {"type": "string", "minLength": 3, "maxLength": 5},
    "zero length": {"type": "string", "maxLength": 0},
    "length of unicode": {"type": "string", "minLength": 2, "maxLength": 2, "pattern": "^[é日😀]+$"},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    "unanchored pattern": {"type": "string", "pattern": "[0-9]-x", "maxLength": 12},
    "pattern with slash": {"type": "string", "pattern": "^a/b\\\\c$"},
    "pattern of quotes": {"type": "string", "pattern": '^"+$', "maxLength": 5},
    "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    "prefix items": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "string", "maxLength": 3}],
        "items": False,
        "minItems": 2,
    },
    "empty array": {"type": "array", "maxItems": 0},
    "required": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "additional": {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "additionalProperties": {"type": "boolean"},
    },
    "required but not named": {"type": "object", "required": ["zz"]},
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^x[0-9]$": {"type": "integer"}},
        "additionalProperties": False,
    },
    "no properties": {"type": "object", "additionalProperties": False},
    "strange names": {
        "type": "object",
        "properties": {
            name: {"type": "boolean"} for name in ("", " ", '"', "\\", "é", "日本", "a.b", "$ref", "\n")
        },
        "required": ["", '"', "é"],
        "additionalProperties": False,
    },
    "anyOf": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "integer"}]},
    "oneOf apart": {"oneOf": [{"type": "boolean"}, {"type": "integer"}]},
    "oneOf with kinds": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "value": {"type": value}},
                "required": ["kind", "value"],
                "additionalProperties": False,
            }
            for kind, value in (("a", "integer"), ("b", "boolean"))
        ]
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    "allOf narrows": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    "reference": {
        "$defs": {"point": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}},
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}},
        "required": ["from", "to"],
        "additionalProperties": False,
    },
    "old definitions": {"definitions": {"x": {"type": "boolean"}}, "$ref": "#/definitions/x"},
    "reference into properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "tree": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer", "minimum": 0, "maximum": 9},
                    "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                },
                "required": ["v"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "list by reference to the root": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
        "additionalProperties": False,
    },
    "annotations": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/x",
        "$comment": "c",
        "title": "t",
        "description": "d",
        "default": 1,
        "examples": [1],
        "deprecated": True,
        "readOnly": True,
        "type": "integer",
    },
    "openapi words": {"type": "string", "maxLength": 3, "nullable": True, "example": "x", "xml": {}},
}

FORMATS = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")

REFUSED: dict[str, tuple[Schema, str]] = {
    "not": ({"not": {"type": "string"}}, "not"),
    "if": ({"if": {}, "then": {"type": "string"}}, "if"),
    "unique": (
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
        "properties.a.uniqueItems",
    ),
    "contains": ({"type": "array", "contains": {"type": "integer"}}, "contains"),
    "property names": ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
    "dependent": ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    "unevaluated": ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
    "dynamic": ({"$dynamicRef": "#x"}, "$dynamicRef"),
    "draft 3": ({"properties": {"x": {"type": "integer", "divisibleBy": 2}}}, "properties.x.divisibleBy"),
    "lookahead": (
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}},
        "properties.x.pattern",
    ),
    "backreference": ({"type": "array", "items": {"type": "string", "pattern": "(a)\\1"}}, "items.pattern"),
    "broken pattern": ({"anyOf": [{"type": "null"}, {"type": "string", "pattern": "("}]}, "anyOf[1].pattern"),
    "broken property pattern": ({"patternProperties": {"(": {}}}, 'patternProperties["("]'),
    "unknown format": ({"type": "string", "format": "zip-code"}, "format"),
    "behind a reference": (
        {"$defs": {"q": {"uniqueItems": True}}, "properties": {"a": {"$ref": "#/$defs/q"}}},
        "$defs.q.uniqueItems",
    ),
    "reference to nothing": ({"items": {"$ref": "#/$defs/missing"}}, "items.$ref"),
    "reference outside": ({"items": {"$ref": "https://example.com/schema"}}, "items.$ref"),
    "unknown type": ({"properties": {"a": {"type": "text"}}}, "properties.a.type"),
    "type of type": ({"type": 5}, "type"),
    "required is text": ({"type": "object", "required": "x"}, "required"),
    "properties is a list": ({"type": "object", "properties": []}, "properties"),
    "length is text": ({"type": "string", "minLength": "a"}, "minLength"),
    "negative length": ({"type": "string", "minLength": -1}, "minLength"),
    "empty enum": ({"enum": []}, "enum"),
    "empty range": (
        {"type": "array", "items": {"type": "integer", "minimum": 5, "maximum": 3}, "minItems": 1},
        "items",
    ),
    "empty range required": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3}},
            "required": ["a"],
        },
        "properties.a.minimum",
    ),
    "lengths cross": ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength"),
    "items cross": ({"type": "array", "minItems": 5, "maxItems": 3}, "minItems"),
    "incompatible": ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "allOf"),
    "required but forbidden": (
        {"type": "object", "required": ["zz"], "additionalProperties": False},
        "required",
    ),
    "oneOf that overlaps": (
        {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]},
        "oneOf",
    ),
    "tiny multiple": ({"type": "number", "multipleOf": 1e-300}, "multipleOf"),
    "zero multiple": ({"type": "number", "multipleOf": 0}, "multipleOf"),
}
"""Schemas that are refused, and where the refusal points."""


def nested_arrays(depth: int) -> Schema:
    schema: Schema = {"type": "boolean"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
    return schema


def adversarial() -> Iterator[tuple[str, Schema]]:
    """Each answers or is refused within its time."""
    yield "deep", nested_arrays(50)
    yield "too deep", nested_arrays(300)
    yield "large enum", {"enum": [f"value {i}" for i in range(5_000)]}
    yield "huge enum", {"enum": [f"value {i}" for i in range(200_000)]}
    names = [f"p{i}" for i in range(10_000)]
    yield "many optional", {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    yield "many required", {"type": "object", "properties": {name: {} for name in names}, "required": names}
    yield (
        "endless",
        {
            "$defs": {
                "n": {
                    "type": "object",
                    "properties": {"c": {"$ref": "#/$defs/n"}},
                    "required": ["c"],
                    "additionalProperties": False,
                }
            },
            "$ref": "#/$defs/n",
        },
    )
    yield "reference to itself", {"$ref": "#"}
    yield (
        "references in a ring",
        {
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            "$ref": "#/$defs/a",
        },
    )
    yield "many items", {"type": "array", "items": {"type": "null"}, "minItems": 10**9}
    yield "long text", {"type": "string", "minLength": 100_000}
    for number, pattern in enumerate(BOMBS):
        yield f"pattern {number}", {"type": "string", "pattern": pattern}
    letters = "abcdefghijklmnop"
    yield "all patterns", {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in letters]}
    yield "many oneOf", {"oneOf": [{"properties": {f"k{i}": {}}, "required": [f"k{i}"]} for i in range(500)]}
    yield "many anyOf", {"anyOf": [{"type": "object", "properties": {f"k{i}": {}}} for i in range(3_000)]}
    yield (
        "product of anyOf",
        {"allOf": [{"anyOf": [{"properties": {f"k{i}_{j}": {}}} for j in range(10)]} for i in range(8)]},
    )
    yield "large numbers", {"type": "integer", "minimum": 10**30, "maximum": 10**31}
    yield (
        "prime multiples",
        {"allOf": [{"type": "integer", "multipleOf": p} for p in (7, 11, 13, 17, 19, 23)]},
    )
    yield "large multiple", {"type": "integer", "multipleOf": 9_999_991}
    yield "long name", {"type": "object", "properties": {"n" * 50_000: {}}, "required": ["n" * 50_000]}


BOMBS = (
    "(a+)+b",
    "(.*)*x",
    "a{1,100000}",
    "(a|a)*",
    "[\\s\\S]{0,65535}",
    "(x+x+)+y",
    "(a{1,1000}){1,1000}",
    ".*a.{20}",
    "(.|\n)*a.{1000}b",
    "((((((a{1,20}){1,20}){1,20}){1,20}){1,20}){1,20})",
    "a" * 400_000,
    "|".join(f"(a{{{i}}})*" for i in range(2, 200)),
    "(" * 5_000 + "a" + ")" * 5_000,
)


def random_schema(chance: random.Random, depth: int = 3) -> Schema:
    """A schema of the kind that applications send."""
    kinds = ["string", "integer", "number", "boolean", "enum", "pattern"]
    if depth:
        kinds += ["object", "object", "array", "anyOf", "nullable"]
    kind = chance.choice(kinds)
    if kind == "object":
        return _random_object(chance, depth)
    if kind == "array":
        low = chance.randint(0, 2)
        items = random_schema(chance, depth - 1)
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + chance.randint(0, 2)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(chance, depth - 1) for _ in range(chance.randint(1, 3))]}
    if kind == "nullable":
        return {"anyOf": [random_schema(chance, depth - 1), {"type": "null"}]}
    if kind == "enum":
        values: list[Any] = ["x", "y z", "ü", 3, -1.5, None, True, [], {}]
        return {"enum": chance.sample(values, chance.randint(1, 5))}
    if kind == "pattern":
        return {"type": "string", "pattern": chance.choice(["^[a-f]{2,6}$", "^\\d+-\\d$", "^(yes|no)$"])}
    if kind == "string":
        return {"type": "string", "minLength": chance.randint(0, 2), "maxLength": chance.randint(2, 12)}
    if kind == "boolean":
        return {"type": "boolean"}
    low = chance.randint(-50, 50)
    return {"type": kind, "minimum": low, "maximum": low + chance.randint(0, 500)}


def _random_object(chance: random.Random, depth: int) -> Schema:
    names = chance.sample(
        ["name", "age", "größe", "is ok", "tags", "x-y", "日本", "id"], chance.randint(1, 4)
    )
    schema: Schema = {
        "type": "object",
        "properties": {name: random_schema(chance, depth - 1) for name in names},
        "required": [name for name in names if chance.random() < 0.6],
    }
    if chance.random() < 0.8:
        schema["additionalProperties"] = False
    return schema


def corpus() -> list[tuple[str, Schema]]:
    """All of it, by name."""
    chance = random.Random(20)
    found = list(SIMPLE.items())
    found += [(f"format {name}", {"type": "string", "format": name}) for name in FORMATS]
    found += [(f"refused: {name}", schema) for name, (schema, _) in REFUSED.items()]
    found += [(f"hostile: {name}", schema) for name, schema in adversarial()]
    found += [(f"random {number}", random_schema(chance)) for number in range(260)]
    return found
