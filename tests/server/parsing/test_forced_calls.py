"""Forms of calls made from the same table: what they allow is read back, and nothing else is allowed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from llguidance import LLMatcher
from parsing_samples import SCHEMAS, WEATHER, fed, read, reasoning_for, said

from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.vocabulary import Vocabulary, ll_tokenizer
from octavo.messages.structured import StructuredOutputsParams
from octavo.server.parsing.arguments import types_of
from octavo.server.parsing.behind_reasoning import PLACE, behind_reasoning
from octavo.server.parsing.forced import CallForms, ForcedTool
from octavo.server.parsing.formats.contract import Shape, ToolFormat
from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.machine import AnswerReader, Machine
from octavo.server.parsing.output import Output
from octavo.server.parsing.reasoning import REASONING_FORMATS

EOS = 256
VOCABULARY = Vocabulary(
    tokens=[*(bytes([byte]) for byte in range(256)), b""], special={"<eos>": EOS}, eos_token_ids=[EOS]
)
COMPILER = GrammarCompiler(VOCABULARY)
TOKENIZER = ll_tokenizer(VOCABULARY)
TOOLS = [
    ForcedTool(name=name, parameters=schema, origin=f"tools[{index}].function.parameters")
    for index, (name, schema) in enumerate(SCHEMAS.items())
]


def compiled(form: dict[str, Any]) -> str:
    return COMPILER.compile(StructuredOutputsParams(structural_tag={"format": form}))


def allows(canonical: str, text: str) -> bool:
    """Whether the whole text may be said, and be the end."""
    matcher = LLMatcher(TOKENIZER, canonical, log_level=0)
    for byte in text.encode():
        mask = matcher.compute_bitmask()
        if matcher.is_stopped() or not mask[byte // 8] >> byte % 8 & 1:
            return False
        matcher.consume_token(byte)
    return matcher.is_accepting()


def written(format: ToolFormat, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """Calls as a format's shape says they are written."""
    shape = format.shape
    assert shape is not None
    before, after = shape.call
    parts = [before.replace("NAME", name) + _arguments(shape, name, values) + after for name, values in calls]
    thought = "" if shape.thought is None else shape.thought[0] + "Hm." + shape.thought[1]
    return thought + shape.begin + (shape.between or "").join(parts) + shape.end


def _arguments(shape: Shape, name: str, values: dict[str, Any]) -> str:
    if shape.arguments == "json":
        return json.dumps(values)
    joiner = "" if shape.arguments == "tags" else ", "
    return joiner.join(_argument(shape, name, key, value) for key, value in values.items())


def _argument(shape: Shape, name: str, key: str, value: Any) -> str:
    is_text = "string" in types_of(SCHEMAS[name]["properties"].get(key))
    before, after = shape.argument
    before = before.replace("KEY", key).replace("IS_TEXT", "true" if is_text else "false")
    is_bare = isinstance(value, str) and (shape.arguments == "tags" or shape.quote)
    plain = f"{shape.quote}{value}{shape.quote}" if is_bare else json.dumps(value)
    return before + plain + after


SHAPED = [name for name, format in TOOL_FORMATS.items() if format.shape is not None]


def test_every_format_can_be_forced() -> None:
    assert set(SHAPED) == set(TOOL_FORMATS)


@pytest.mark.parametrize("name", SHAPED)
def test_forced_calls(name: str) -> None:
    format = TOOL_FORMATS[name]
    forms = CallForms(format)
    form = forms.required(TOOLS, is_single=False, place=PLACE)
    if format.shape is not None and format.shape.thought is not None:
        thought = {
            "begin": format.shape.thought[0],
            "content": {"type": "any_text"},
            "end": format.shape.thought[1],
        }
        form = {"type": "sequence", "elements": [{"type": "tag", **thought}, form]}
    grammar = compiled(form)
    paris = ("get_weather", {"city": "Paris", "days": 3})
    calls = [paris] if format.shape is not None and format.shape.between is None else [paris, ("now", {})]
    text = written(format, calls)
    assert allows(grammar, text), text
    found = read(name, text, reasoning_for(name), 1)
    assert [json.loads(value) for kind, value in found if kind == "arguments"] == [
        values for _, values in calls
    ]
    assert [value for kind, value in found if kind == "call"] == [called for called, _ in calls]
    assert all(value for kind, value in found if kind == "end")
    assert not allows(grammar, "Hello.")
    assert not allows(grammar, "")
    assert not allows(grammar, written(format, [("get_weather", {"city": "Paris", "days": "many"})]))
    assert not allows(grammar, written(format, [("now", {})]).replace("now", "other"))


@pytest.mark.parametrize("name", SHAPED)
def test_text_with_checked_calls(name: str) -> None:
    """Strict tools where the model may also just talk."""
    format = TOOL_FORMATS[name]
    forms = CallForms(format)
    grammar = compiled(forms.checked(TOOLS, is_single=False, place=PLACE))
    assert allows(grammar, "Hello, it is sunny.")
    text = written(format, [("get_weather", {"city": "Paris", "days": 3})])
    if format.shape is not None and format.shape.thought is not None:
        return  # The thought is text there.
    assert allows(grammar, text), text
    assert not allows(grammar, written(format, [("get_weather", {"city": "Paris", "days": "many"})]))


@pytest.mark.parametrize("name", [name for name in SHAPED if TOOL_FORMATS[name].shape.thought is None])
def test_checked_calls_are_read(name: str) -> None:
    """What the grammar holds to its schema is what the reader takes for a call, and nothing else is."""
    format = TOOL_FORMATS[name].as_shaped
    grammar = compiled(CallForms(format).checked(TOOLS, is_single=False, place=PLACE))
    text = written(format, [("get_weather", {"city": "Paris", "days": 3})])
    assert allows(grammar, text), text
    reader = Machine(AnswerReader(format, None, starts_in_reasoning=False), Output(schemas=SCHEMAS))
    assert said(fed(reader, [text]))[0] == ("call", "get_weather")
    assert allows(grammar, "It is [sunny] {here}.")


@pytest.mark.parametrize("name", SHAPED)
def test_tools_that_are_not_checked_take_any_arguments(name: str) -> None:
    """Beside strict tools, or where the answer has a form and calls are allowed."""
    format = TOOL_FORMATS[name]
    tools = [replace(tool, is_checked=False) for tool in TOOLS]
    grammar = compiled(CallForms(format).required(tools, is_single=True, place=PLACE))
    for values in ({"city": "Paris", "days": "many"}, {"days": 3}, {}):
        text = written(format, [("get_weather", values)])
        if format.shape.thought is not None:
            text = text.removeprefix(format.shape.thought[0] + "Hm." + format.shape.thought[1])
        assert allows(grammar, text), text


def test_tools_of_unknown_arguments() -> None:
    free = ForcedTool(name="f", parameters={"type": "object"}, origin="tools[0]")
    closed = replace(free, parameters={"type": "object", "properties": {}, "additionalProperties": False})
    text = "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
    forms = CallForms(TOOL_FORMATS["qwen3-coder"])
    assert allows(compiled(forms.required([free], is_single=True, place=PLACE)), text)
    assert not allows(compiled(forms.required([closed], is_single=True, place=PLACE)), text)


def test_single_calls() -> None:
    hermes = TOOL_FORMATS["hermes"]
    two = written(hermes, [("now", {}), ("now", {})])
    assert allows(compiled(CallForms(hermes).required(TOOLS, is_single=False, place=PLACE)), two)
    assert not allows(compiled(CallForms(hermes).required(TOOLS, is_single=True, place=PLACE)), two)


def test_optional_arguments_of_python_calls() -> None:
    format = TOOL_FORMATS["pythonic"]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    tool = ForcedTool(name="f", parameters=schema, origin="tools[0]")
    grammar = compiled(CallForms(format).required([tool], is_single=True, place=PLACE))
    for text in ("[f()]", "[f(a=1)]", "[f(b=2)]", "[f(a=1, b=2)]"):
        assert allows(grammar, text), text
    for text in ("[f(,b=2)]", "[f(b=2, a=1)]", "[f(c=1)]"):
        assert not allows(grammar, text), text


def test_properties_may_refer_to_definitions() -> None:
    schema = {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/point"}},
        "required": ["p"],
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    }
    tool = ForcedTool(name="f", parameters=schema, origin="tools[0]")
    grammar = compiled(CallForms(TOOL_FORMATS["seed-oss"]).required([tool], is_single=True, place=PLACE))
    text = '<seed:tool_call>\n<function=f>\n<parameter=p>{"x": 1}</parameter>\n</function>\n</seed:tool_call>'
    assert allows(grammar, text)
    assert not allows(grammar, text.replace("1", '"1"'))


@pytest.mark.parametrize("name", ["qwen3-coder", "gemma4", "pythonic", "deepseek-v3.2"])
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/color"},
        {"const": "red"},
        {"type": "string", "const": "red"},
        {"type": "string", "enum": ["red", "blue"]},
    ],
)
def test_words_stay_words(name: str, schema: dict[str, Any]) -> None:
    """One of few texts, said in any of the ways that schemas have."""
    format = TOOL_FORMATS[name]
    parameters = {
        "type": "object",
        "properties": {"c": schema},
        "required": ["c"],
        "$defs": {"color": {"type": "string", "enum": ["red", "blue"]}},
    }
    tool = ForcedTool(name="f", parameters=parameters, origin="tools[0]")
    grammar = compiled(CallForms(format).required([tool], is_single=True, place=PLACE))
    begin, end = format.shape.argument
    quote = '"' if name == "pythonic" else format.shape.quote
    value = begin.replace("KEY", "c").replace("IS_TEXT", "true") + quote + "red" + quote + end
    before, after = format.shape.call
    text = format.shape.begin + before.replace("NAME", "f") + value + after + format.shape.end
    assert allows(grammar, text), text
    assert not allows(grammar, text.replace("red", "green"))
    found = read(name, text, schemas={"f": parameters})
    assert found == [("call", "f"), ("arguments", '{"c": "red"}'), ("end", True)]


def test_places_of_schemas_are_known() -> None:
    for name in ("hermes", "mistral-v3", "jamba"):
        forms = CallForms(TOOL_FORMATS[name])
        form = forms.required(TOOLS, is_single=False, place=PLACE)
        for place, origin in forms.origins.items():
            found: Any = {"structured_outputs": {"structural_tag": {"format": form}}}
            for step in place.replace("[", ".").replace("]", "").split("."):
                found = found[int(step)] if step.isdigit() else found[step]
            assert found == TOOLS[int(origin[6])].parameters
        assert len(forms.origins) == 2


JSON_WISH = StructuredOutputsParams(json={"type": "integer"})
ORIGINS = {"structured_outputs.json": "response_format.json_schema.schema"}


def test_a_form_behind_reasoning() -> None:
    think = REASONING_FORMATS["think"]
    wish, origins = behind_reasoning(JSON_WISH, ORIGINS, think, is_open=True, end_token_ids=[7])
    assert wish.begin_after == [7] and wish.json == {"type": "integer"} and origins == ORIGINS
    wish, origins = behind_reasoning(JSON_WISH, ORIGINS, think, is_open=True, end_token_ids=[7, 8])
    grammar = COMPILER.compile(wish)
    assert allows(grammar, "Hm.</think>5") and allows(grammar, "Hm.</think>\n\n5")
    assert not allows(grammar, "Hm.") and not allows(grammar, "Hm.</think>x")
    assert list(origins) == ["structured_outputs.structural_tag.format.elements[2].json_schema"]
    wish, _ = behind_reasoning(JSON_WISH, ORIGINS, think, is_open=False, end_token_ids=[7])
    grammar = COMPILER.compile(wish)
    assert allows(grammar, "<think>Hm.</think>5") and allows(grammar, "5")
    assert not allows(grammar, "<think>Hm.") and not allows(grammar, "Hm.</think>5")


def test_a_form_in_harmony() -> None:
    wish, _ = behind_reasoning(
        JSON_WISH, ORIGINS, REASONING_FORMATS["gpt-oss"], is_open=False, end_token_ids=[]
    )
    grammar = COMPILER.compile(wish)
    final = "<|channel|>final<|message|>5"
    assert allows(grammar, final)
    assert allows(grammar, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" + final)
    assert not allows(grammar, "5")


@pytest.mark.parametrize(
    "wish",
    [
        StructuredOutputsParams(json_object=True),
        StructuredOutputsParams(json='{"type": "object"}'),
        StructuredOutputsParams(regex=r"\{\}"),
        StructuredOutputsParams(choice=["{}", "[]"]),
        StructuredOutputsParams(grammar='start: "{}"'),
        StructuredOutputsParams(structural_tag={"format": {"type": "const_string", "value": "{}"}}),
    ],
)
def test_every_kind_of_form_goes_behind_reasoning(wish: StructuredOutputsParams) -> None:
    think = REASONING_FORMATS["think"]
    moved, _ = behind_reasoning(wish, {}, think, is_open=False, end_token_ids=[7])
    assert allows(COMPILER.compile(moved), "<think>Hm.</think>{}")


def test_weather_is_what_the_tests_think_it_is() -> None:
    assert WEATHER["required"] == ["city"]
