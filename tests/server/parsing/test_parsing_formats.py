"""Every format's calls are read, whole and letter by letter."""

from __future__ import annotations

import json

import pytest
from parsing_samples import NOW, PARIS, SAMPLES, WEATHER, fed, machine, read, reasoning_for, said

from octavo.server.parsing.events import ContentDelta, ToolArgumentsDelta, ToolCallBegin
from octavo.server.parsing.formats.table import ALIASES, TOOL_FORMATS


def test_every_format_has_a_sample() -> None:
    assert SAMPLES.keys() == TOOL_FORMATS.keys()
    assert set(ALIASES.values()) <= TOOL_FORMATS.keys()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("name", SAMPLES)
def test_calls_are_read(name: str, size: int) -> None:
    text, expected = SAMPLES[name]
    assert read(name, text, reasoning_for(name), size) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_behind_reasoning(name: str) -> None:
    if name == "gpt-oss":
        return
    text, expected = SAMPLES[name]
    thought = "<think>\nShall I?\n</think>\n\n"
    assert read(name, thought + text, "think", 1) == [("reasoning", "Shall I?"), *expected]


@pytest.mark.parametrize("name", SAMPLES)
def test_arguments_come_as_they_are_written(name: str) -> None:
    """A long string is passed on long before the call is over."""
    text, _ = SAMPLES[name]
    long = "word " * 200
    text = text.replace("Paris", long + "END")
    reader = machine(name, reasoning_for(name))
    so_far = ""
    for char in text[: text.index("END")]:
        so_far += "".join(e.text for e in reader.feed(char) if isinstance(e, ToolArgumentsDelta))
    assert len(so_far) > 900


@pytest.mark.parametrize("name", SAMPLES)
def test_strings_survive(name: str) -> None:
    """Quotes, line ends, braces and other scripts in a value."""
    value = 'Zürich "Nord"\n{[東京]}, a=1 😀'
    written = {"json": json.dumps(value), "python": json.dumps(value, ensure_ascii=False)}
    text, _ = SAMPLES[name]
    is_bare = name in {
        "qwen3-coder",
        "seed-oss",
        "glm",
        "minimax",
        "deepseek-v3.2",
        "functiongemma",
        "gemma4",
    }
    quoted = text.replace("'Paris'", '"Paris"')
    new = quoted.replace("Paris", value) if is_bare else quoted.replace('"Paris"', written["json"])
    found = read(name, new, reasoning_for(name), 1)
    arguments = next(v for kind, v in found if kind == "arguments")
    assert json.loads(arguments)["city"] == value


def test_ids() -> None:
    mistral = fed(machine("mistral"), [SAMPLES["mistral"][0]])
    assert next(e.call_id for e in mistral if isinstance(e, ToolCallBegin)) == "abcdefghi"
    kimi = fed(machine("kimi"), [SAMPLES["kimi"][0]])
    ids = [e.call_id for e in kimi if isinstance(e, ToolCallBegin)]
    assert ids == ["functions.get_weather:0", "functions.now:1"]
    hermes = fed(machine("hermes"), [SAMPLES["hermes"][0]])
    ids = [e.call_id for e in hermes if isinstance(e, ToolCallBegin)]
    assert len(set(ids)) == 2 and all(i.startswith("call_") for i in ids)


def test_at_most_so_many_calls() -> None:
    text, expected = SAMPLES["hermes"]
    assert read("hermes", text, max_calls=1) == expected[:4]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        '<tool_call>{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}'
        "</tool_call>",
        '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        '<tool_call>[{"name": "get_weather", "parameters": {"city": "Paris"}}]</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}}\n</tool_call>',
    ],
)
def test_what_models_make_of_the_json_format(text: str) -> None:
    assert read("hermes", text, size=1) == [*PARIS]


def test_text_between_and_behind_calls() -> None:
    call = '<tool_call>{"name": "now"}</tool_call>'
    found = read("hermes", f"A\n{call}\n\nB {call} C </tool_call> D", size=1)
    assert found == [("content", "A"), *NOW, ("content", "B"), *NOW, ("content", "CD")]


def test_untagged_calls_only_for_tools_there_are() -> None:
    """An answer that is JSON or a list is not a call."""
    for text in (
        '{"name": "Alice", "parameters": {"age": 3}}',
        '{"name": "get_weather"}',
        '{"city": "Paris"}',
        'Well: {"name": "get_weather", "parameters": {"city": "Paris"}}',
    ):
        assert read("llama3", text, size=1) == [("content", text)]
    for text in ("[1, 2, 3]", "[other(a=1)]", "See [get_weather(city='Paris')]"):
        assert read("pythonic", text, size=1) == [("content", text)]


@pytest.mark.parametrize("name", ["hermes", "llama3"])
def test_an_answer_that_is_json_is_seen_while_it_comes(name: str) -> None:
    """No key of a call: the rest of the object need not be waited for."""
    reader = machine(name, None)
    seen = ""
    for piece in ('{"ans', 'wer": "Yes', ", and a long", " story"):
        seen += "".join(event.text for event in reader.feed(piece) if isinstance(event, ContentDelta))
    assert seen == '{"answer": "Yes, and a long story'


def test_python_literals() -> None:
    text = (
        "[get_weather(city='it\\'s \\u00e9\\n\\x41', days=-3, "
        "where={'a': [1, None, True, (2.5, .5)], \"b\": {}}, "
        'note="""tri"ple""")]'
    )
    (_, arguments) = read("pythonic", text, size=1)[1]
    assert json.loads(arguments) == {
        "city": "it's é\nA",
        "days": -3,
        "where": {"a": [1, None, True, [2.5, 0.5]], "b": {}},
        "note": 'tri"ple',
    }


def test_harmony() -> None:
    preamble = (
        "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant<|channel|>commentary "
        "to=functions.now<|message|>{}<|call|>"
    )
    assert read("gpt-oss", preamble, "gpt-oss", 1) == [("content", "I will look."), *NOW]
    recipient_first = " to=functions.now<|channel|>commentary <|constrain|>json<|message|>{}<|call|>"
    assert read("gpt-oss", recipient_first, "gpt-oss", 1) == [*NOW]
    own_tool = (
        "<|channel|>analysis to=python code<|message|>print(1)<|end|><|start|>assistant<|channel|>final"
        "<|message|>1"
    )
    assert read("gpt-oss", own_tool, "gpt-oss", 1) == [("reasoning", "print(1)"), ("content", "1")]
    no_tools = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.<|return|>"
    )
    assert read(None, no_tools, "gpt-oss", 1) == [("reasoning", "Hm."), ("content", "Hi.")]


def test_typed_by_the_schema() -> None:
    """Bare text becomes what the schema says it is."""
    text = (
        "<tool_call>\n<function=f>\n<parameter=s>\n5\n</parameter>\n<parameter=i>\n5\n</parameter>\n"
        '<parameter=b>\nTrue\n</parameter>\n<parameter=o>\n{"a": [1]}\n</parameter>\n'
        "<parameter=n>\nnull\n</parameter>\n<parameter=bad>\nmany\n</parameter>\n<parameter=new>\n[1]\n</parameter>\n"
        "</function>\n</tool_call>"
    )
    properties = {
        "s": {"type": "string"},
        "i": {"type": "integer"},
        "b": {"type": "boolean"},
        "o": {"type": "object"},
        "n": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "bad": {"type": "integer"},
    }
    found = read("qwen3-coder", text, schemas={"f": {"type": "object", "properties": properties}}, size=1)
    assert json.loads(found[1][1]) == {
        "s": "5", "i": 5, "b": True, "o": {"a": [1]}, "n": None, "bad": "many", "new": [1],
    }  # fmt: skip


def test_weather_schema_is_used() -> None:
    assert WEATHER["properties"]["days"]["type"] == "integer"
    assert said([]) == []


@pytest.mark.parametrize("size", [0, 1])
def test_tags_that_are_left_out(size: int) -> None:
    """Small models write the object alone, or in a code block: a call if it can be one."""
    call = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    assert read("hermes", call, size=size) == [*PARIS]
    assert read("hermes", f"```json\n{call}\n```", size=size) == [*PARIS]
    assert read("hermes", f"{call}\n{call}", size=size) == [*PARIS, *PARIS]
    for text in (
        '{"name": "other", "arguments": {}}',
        '```json\n{"name": "get_weather"}\n```',
        '{"city": "Paris"}',
        f"So: {call}",
    ):
        assert read("hermes", text, size=size) == [("content", text)]
