"""What is not well formed: nothing is lost, nothing is taken back, nothing raises."""

from __future__ import annotations

import json

import pytest
from parsing_samples import NOW, PARIS, SAMPLES, read, reasoning_for

from octavo.server.parsing.formats.table import TOOL_FORMATS


@pytest.mark.parametrize(
    "text",
    [
        "use the <tool_call> tag",
        "<tool_call>not json</tool_call>",
        '<tool_call>{"nome": "x"}</tool_call>',
        '<tool_call>{"name": 5}</tool_call>',
        "<tool_call>",
        "<tool",
        "a <",
        '<tool_call>{"name": "',
        '<tool_call>{"name": ""}</tool_call>',
        "</tool_call>",
        '<tool_call>{"arguments": {"a": 1',
    ],
)
def test_no_call_is_text_as_it_was_written(text: str) -> None:
    for size in (0, 1, 3):
        assert read("hermes", text, size=size) == [("content", text)]


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_anywhere(name: str) -> None:
    """An answer that ends too early: the call is incomplete, or what there is of it is text."""
    text, expected = SAMPLES[name]
    for cut in range(len(text)):
        found = read(name, text[:cut], reasoning_for(name))
        names = [value for kind, value in found if kind == "call"]
        assert names == [value for kind, value in expected if kind == "call"][: len(names)]
        arguments = [value for kind, value in found if kind == "arguments"]
        whole = [value for kind, value in expected if kind == "arguments"]
        ends = [value for kind, value in found if kind == "end"]
        assert len(ends) == len(names)
        for index, is_complete in enumerate(ends):
            made = arguments[index] if index < len(arguments) else ""
            if is_complete:
                json.loads(made)
            else:
                # The beginning of an end tag at the very end belongs to the value, as far as one can know.
                certain = made.split("<")[0].rstrip("\n").removesuffix("\\n")
                assert whole[index].startswith(certain)


def test_broken_arguments_end_the_call() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": <oops>}}</tool_call>after'
    found = read("hermes", text, size=1)
    assert found[:3] == [("call", "get_weather"), ("arguments", '{"city": '), ("end", False)]
    assert "oops" in found[3][1] and found[-1][1].endswith("after")


def test_the_second_call_may_be_broken() -> None:
    text = '<tool_call>{"name": "now"}</tool_call><tool_call>{"name": </tool_call>'
    assert read("hermes", text, size=1) == [*NOW, ("content", '<tool_call>{"name":')]
    listed = '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"oops"}] and text'
    assert read("mistral-v3", listed, size=1) == [*NOW, ("content", ', {"oops"}] and text')]


def test_a_call_inside_reasoning() -> None:
    """A whole call ends the reasoning; a mention of a marker does not."""
    text = '<think>I could use <tool_call> here.\n<tool_call>{"name": "now"}</tool_call>'
    found = read("hermes", text, "think", 1)
    assert found == [("reasoning", "I could use <tool_call> here."), *NOW]


def test_raw_line_ends_in_strings_are_escaped() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "Par\nis\t"}}</tool_call>'
    assert json.loads(read("hermes", text)[1][1]) == {"city": "Par\nis\t"}


def test_missing_end_tags() -> None:
    text = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}\nThat was it.'
    assert read("hermes", text, size=1) == [*PARIS, ("content", "That was it.")]
    assert read("qwen3-coder", "<function=now>\nDone.", size=1) == [*NOW, ("content", "Done.")]


def test_a_value_without_end_is_a_string_so_far() -> None:
    text = "<function=get_weather><parameter=days>" + "5" * 200_000
    found = read("qwen3-coder", text, size=1000)
    assert found[1] == ("arguments", '{"days": "' + "5" * 200_000) and found[-1] == ("end", False)
    closed = text + "</parameter></function>"
    assert json.loads(read("qwen3-coder", closed)[1][1]) == {"days": "5" * 200_000}


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_plain_text_passes_unchanged(name: str) -> None:
    for text in (
        "Hello, world! 1 < 2 && a[0] == {x}",
        "  spaced  \n\n",
        "```python\nx = {}\n```\n",
        "é😀 ｜ ▁",
    ):
        assert read(name, text, reasoning_for(name), 1) == [("content", text)]


def test_text_behind_a_call_may_begin_like_its_end() -> None:
    code = "```python\nx = 1\n```"
    call = '<tool_call>{"name": "now"}</tool_call>'
    assert read("hermes", call + "\n" + code, size=1) == [*NOW, ("content", code)]
    fenced = '```json\n{"name": "now", "arguments": {}}\n```'
    assert read("hermes", fenced + "\n" + fenced, size=1) == [*NOW, *NOW]
    assert read("hermes", call.replace("</", "}</") + "\n} else {", size=1) == [*NOW, ("content", "} else {")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mistral", "[TOOL_CALLS]now[ARGS]"),
        ("deepseek-v3.1", "<｜tool▁call▁begin｜>now<｜tool▁sep｜>"),
        ("deepseek-v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n"),
        ("kimi", "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|> "),
    ],
)
def test_cut_before_the_arguments(name: str, text: str) -> None:
    """Nobody knows what they would have been."""
    assert read(name, text, size=1) == [("call", "now"), ("end", False)]


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("text", ["<|channel|>", "<|channel|>analysis", "<|channel|>final <|mess"])
def test_a_message_cut_within_its_header_says_nothing(text: str, size: int) -> None:
    assert read(None, text, "gpt-oss", size) == []
    said = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    assert read(None, said + text, "gpt-oss", size) == [("reasoning", "Hm.")]
    for other in (
        "<|channel|>" + "x" * 1000,
        "<|channel|>It will rain in Paris",
        '<|channel|>final {"a": 1}',
    ):
        assert read(None, other, "gpt-oss", size) == [("content", other)]


@pytest.mark.parametrize("size", [0, 1])
def test_ways_of_small_models(size: int) -> None:
    llama = '{"type": "function", "function": "get_weather", "parameters": {"city": "Paris"}}'
    assert read("llama3", llama, size=size) == [*PARIS]
    gemma = '```tool_code\nprint(get_weather(city="Paris"))\nprint( now() )\nnow()\n```\nWait.'
    assert read("gemma3", gemma, size=size) == [*PARIS, *NOW, *NOW, ("content", "Wait.")]


@pytest.mark.parametrize("size", [0, 1])
def test_a_recipient_without_its_namespace(size: int) -> None:
    """A tool that was shown is called; others are the model's own."""
    header = "<|start|>assistant<|channel|>commentary to={} <|constrain|>json<|message|>"
    assert read("gpt-oss", header.format("now") + "{}<|call|>", "gpt-oss", size) == [*NOW]
    own = header.format("python") + "1 + 1<|call|>"
    assert read("gpt-oss", own, "gpt-oss", size) == [("reasoning", "1 + 1")]


@pytest.mark.parametrize("size", [0, 1])
def test_objects_on_lines_of_their_own(size: int) -> None:
    """As MiniMax M1 writes them."""
    call = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    text = f'<tool_calls>\n{call}\n{{"name": "now", "arguments": {{}}}}\n</tool_calls>'
    assert read("jamba", text, size=size) == [*PARIS, *NOW]
    assert read("jamba", text + "\n{x}", size=size) == [*PARIS, *NOW, ("content", "{x}")]
    assert read("hermes", f"<tool_call>\n{call}\n{{no}}", size=size) == [*PARIS, ("content", "{no}")]


def test_white_space_around_markers_is_layout() -> None:
    text = "A  \n\n<tool_call>" + '{"name": "now"}' + "</tool_call>\n\n"
    assert read("hermes", text, size=1) == [("content", "A"), *NOW]
    far = "A" + " " * 1000 + '<tool_call>{"name": "now"}</tool_call>'
    assert read("hermes", far, size=7) == [("content", "A" + " " * 744), *NOW]
