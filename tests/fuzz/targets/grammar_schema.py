"""JSON schemas that answers have to follow."""

from __future__ import annotations

from tests.fuzz.grammar_door import grammar_target
from tests.fuzz.mutate import json_mutator
from tests.grammar.schema_corpus import SIMPLE

WORDS = (
    "type", "properties", "required", "items", "enum", "const", "anyOf", "oneOf", "allOf", "not", "if",
    "then", "else",
    "pattern", "format", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum",
    "exclusiveMinimum",
    "multipleOf", "additionalProperties", "patternProperties", "propertyNames", "prefixItems", "uniqueItems",
    "$ref",
    "$defs", "definitions", "#/$defs/a", "#", "minProperties", "maxProperties", "dependentRequired",
    "contains",
    "unevaluatedProperties", "x-guidance", "string", "integer", "number", "object", "array", "boolean",
    "null",
    "date-time", "uuid", "ipv6", "email", "uri", "^a+$", "(a|b)*", "nullable", "default", "$id", "$schema",
    "a", "b",
)  # fmt: skip
TARGET = grammar_target("json", SIMPLE.values(), json_mutator(WORDS), is_json=True)
