"""Structural tags: text with parts in a form."""

from __future__ import annotations

from tests.fuzz.grammar_door import grammar_target
from tests.fuzz.mutate import json_mutator

TAG = {
    "type": "tag",
    "begin": "<f>",
    "end": "</f>",
    "content": {"type": "json_schema", "json_schema": {"type": "object"}},
}
SEEDS = (
    {"type": "structural_tag", "format": TAG},
    {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<f"], "tags": [TAG],
     "at_least_one": True, "stop_after_first": False}},
    {"type": "structural_tag", "format": {"type": "sequence", "elements": [
        {"type": "const_string", "value": "a"}, {"type": "any_text"}, {"type": "regex", "pattern": "b+"}]}},
    {"type": "structural_tag", "format": {"type": "or", "elements": [
        {"type": "grammar", "grammar": 'start: "a"'}, {"type": "tags_with_separator", "tags": [TAG],
        "separator": ","}]}},
    {"structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}], "triggers": ["<f>"]},
)  # fmt: skip
WORDS = ("type", "format", "tag", "begin", "end", "content", "json_schema", "triggered_tags", "triggers",
         "tags",
         "at_least_one", "stop_after_first", "sequence", "elements", "const_string", "value", "any_text",
         "regex",
         "pattern", "or", "grammar", "tags_with_separator", "separator", "structures", "schema", "excludes",
         "style",
         "<|im_end|>", "<f>", "</f>", "qwen_xml_parameter", "structural_tag")  # fmt: skip
TARGET = grammar_target("structural_tag", SEEDS, json_mutator(WORDS), is_json=True)
