"""A checkpoint's own response_template is followed, and cannot hurt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsing_samples import NOW, PARIS, Said, fed, said

from octavo.base.errors import ModelFileError
from octavo.server.parsing.machine import Machine
from octavo.server.parsing.output import Output
from octavo.server.parsing.regions import RegionReader, read_regions

QWEN: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*(?:<\|im_end\|>|<\|endoftext\|>)", "content": "text"},
    },
}
TAGS: dict[str, Any] = {
    "start_anchor": "A:",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<function=(?P<name>[^>\n]+)>",
            "close": "</function>",
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r"<p=(?P<key>\w+)>(?P<value>.*?)</p>",
                "value_parser": {"name": "json", "args": {"allow_non_json": True}},
            },
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {},
    },
}
GEMMA: dict[str, Any] = {
    "start_anchor": ["<|turn>model\n", "<tool_response|>"],
    "fields": {
        "reasoning_content": {"open": "<|channel>thought\n", "close": "<channel|>"},
        "tool_calls": {
            "open_pattern": r"<\|tool_call>call:(?P<name>\w+)",
            "close": "<tool_call|>",
            "content": "json",
            "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close": ["<turn|>"]},
    },
}


def read(source: dict[str, Any], text: str, size: int = 0, prompt: str = "", calls: bool = True) -> Said:
    reader = Machine(RegionReader(read_regions(source), prompt, parses_calls=calls), Output())
    size = size or len(text) or 1
    return said(fed(reader, (text[start : start + size] for start in range(0, len(text), size))))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_regions(size: int) -> None:
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
    assert read(QWEN, f"<think>Hm.</think>\n\nI look.\n{call}\n{call}", size) == [
        ("reasoning", "Hm."), ("content", "I look."), *PARIS, *PARIS,
    ]  # fmt: skip
    assert read(QWEN, "Plain 1 < 2.", size) == [("content", "Plain 1 < 2.")]
    assert read(TAGS, "<function=f><p=a>5</p><p=b>x y</p></function>", size)[1] == (
        "arguments", '{"a": 5, "b": "x y"}',
    )  # fmt: skip
    gemma = '<|channel>thought\nHm.<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
    assert read(GEMMA, gemma, size) == [("reasoning", "Hm."), *PARIS]


def test_the_prompt_may_open_a_region() -> None:
    prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert read(QWEN, "Hm.</think>Yes.", 1, prompt) == [("reasoning", "Hm."), ("content", "Yes.")]
    closed = prompt + "\n</think>\n\n"
    assert read(QWEN, "Yes.", 1, closed) == [("content", "Yes.")]


def test_what_is_no_call_is_text() -> None:
    assert read(QWEN, "<tool_call>oops</tool_call>", 1) == [("content", "oops")]
    assert read(QWEN, '<tool_call>{"a": 1}</tool_call>', 1) == [("content", '{"a": 1}')]
    assert read(QWEN, '<tool_call>{"name": "now"', 1) == [("content", '{"name": "now"')]
    assert read(QWEN, '<tool_call>{"name": "now"}</tool_call>', 1) == [*NOW]
    found = read(QWEN, '<tool_call>{"name": "now"}</tool_call>', 1, calls=False)
    assert "".join(text for _, text in found) == '{"name": "now"}'


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "<tool_call>",
                "</tool_call>",
                '{"name": "now"}',
                "a",
                " ",
                "\n",
                "<",
                "<|im_end|>",
            ]
        ),
        max_size=20,
    ).map("".join)
)
def test_any_split_says_the_same(text: str) -> None:
    whole = read(QWEN, text, 0)
    for size in (1, 2, 5):
        assert read(QWEN, text, size) == whole


def test_slow_patterns_are_stopped() -> None:
    evil = {
        "start_anchor": "A:",
        "fields": {"tool_calls": {"open_pattern": "(a+)+b", "close": "x"}, "content": {}},
    }
    text = "a" * 5000
    assert "".join(t for _, t in read(evil, text)) == text


def test_held_text_is_bounded() -> None:
    reader = Machine(RegionReader(read_regions(QWEN), "", parses_calls=True), Output())
    length = sum(len(e.text) for _ in range(400) for e in reader.feed(" " * 100) if hasattr(e, "text"))
    assert length > 30_000


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"version": 2, "fields": {"content": {}}},
        {"fields": {"content": {}, "other": {}}},
        {"fields": {"content": {"open_pattern": "("}}},
        {"fields": {"content": {"open": ""}}},
        {"fields": {"content": {"open": [1]}}},
        {"fields": {"content": {"unknown": 1}}},
        {"fields": {"content": []}},
        {"fields": {"content": {"open_pattern": "x" * 5000}}},
    ],
)
def test_broken_templates_are_refused(source: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match="response_template"):
        read_regions(source)


def test_arguments_as_text() -> None:
    source = json.loads(json.dumps(QWEN))
    found = read(source, '<tool_call>{"name": "now", "arguments": "{}"}</tool_call>', 1)
    assert found == [*NOW]
