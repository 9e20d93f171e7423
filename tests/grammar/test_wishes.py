"""Every kind of wish becomes a grammar that says what was meant, or is refused with the place."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from octavo.base.errors import RequestError
from octavo.grammar.cache import ByteCache
from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.matchers import Matchers
from octavo.grammar.vocabulary import Words
from octavo.messages.params import SamplingParams
from octavo.messages.structured import StructuredOutputsParams as Wish
from tests.grammar.follow import Follower
from tests.tiny import VOCAB_SIZE


@pytest.fixture
def takes(compiler: GrammarCompiler, matchers: Matchers, words: Words) -> Any:
    """Whether an answer fits a wish as a whole. Special tokens in the answer are meant."""

    def takes(wish: Wish, answer: str) -> bool:
        matcher = matchers.open(Wish(canonical=compiler.compile(wish)), []).ready()
        assert matcher is not None
        tokens = words.tokenizer.encode(answer, add_special_tokens=False)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    return takes


def test_json_object(takes: Any) -> None:
    assert takes(Wish(json_object=True), '{"a": [1, {"b": null}]}')
    assert not takes(Wish(json_object=True), "[1]")
    assert not takes(Wish(json_object=True), '{"a": 1')


def test_json_as_text_or_object(takes: Any) -> None:
    schema = {"type": "array", "items": {"enum": ["é", 2]}}
    for wish in (Wish(json=schema), Wish(json=json.dumps(schema))):
        assert takes(wish, '["é", 2]')
        assert not takes(wish, '["e"]')


def test_whitespace_options(takes: Any) -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    assert takes(Wish(json=schema), "[1,\n    2]")
    assert not takes(Wish(json=schema), "[1," + " " * 100 + "2]")
    assert not takes(Wish(json=schema, disable_any_whitespace=True), "[1, 2]")
    assert takes(Wish(json=schema, disable_any_whitespace=True), "[1,2]")
    assert takes(Wish(json=schema, whitespace_pattern="_"), "[1,_2]")


def test_additional_properties(takes: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"properties": {"b": {}}}}}
    assert takes(Wish(json=schema), '{"z": 1}')
    assert not takes(Wish(json=schema, disable_additional_properties=True), '{"z": 1}')
    assert not takes(Wish(json=schema, disable_additional_properties=True), '{"a": {"z": 1}}')


def test_regex_matches_the_whole_answer(takes: Any) -> None:
    wish = Wish(regex=r"a/b|[x-z]{2}\d")
    assert takes(wish, "a/b") and takes(wish, "xy7")
    assert not takes(wish, "a/bc") and not takes(wish, "xy")


def test_choices_are_plain_text(takes: Any) -> None:
    choices = ["yes", 'no "quotes"\n', "日本", "a|b", "<|im_start|>"]
    wish = Wish(choice=choices)
    assert all(takes(wish, choice) for choice in choices[:-1])
    assert not takes(wish, "ye") and not takes(wish, "a")
    assert not takes(wish, "<|im_start|>")  # encoded as the special token


def test_lark_and_gbnf(takes: Any) -> None:
    for grammar in ('start: "a" rest\nrest: "b"*', 'root ::= "a" rest\nrest ::= "b"*'):
        assert takes(Wish(grammar=grammar), "abbb")
        assert not takes(Wish(grammar=grammar), "b")


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (r'root ::= "\u00e9"', "é", "e"),
        (r"root ::= [\u00df-\u00fc]", "é", "a"),
        (r"root ::= [\U0001F600-\U0001F64F]", "😀", "a"),
        (r'root ::= "\u0041" [\u005d]', "A]", "A["),
        (r'root ::= "\\u0041"', r"\u0041", "A"),
    ],
)
def test_characters_by_number_in_gbnf(takes: Any, grammar: str, good: str, bad: str) -> None:
    assert takes(Wish(grammar=grammar), good) and not takes(Wish(grammar=grammar), bad)


def test_no_character_has_this_number(compiler: GrammarCompiler) -> None:
    with pytest.raises(RequestError, match="there is no character"):
        compiler.compile(Wish(grammar=r'root ::= "\ud800"'))


def test_choices_of_control_characters(takes: Any) -> None:
    for choice in ("a\x7f", "a\x80", "a\x01\t", "\u2028"):
        assert takes(Wish(choice=[choice, "b"]), choice)


CALL = {
    "type": "tag",
    "begin": "<call>f(",
    "content": {"type": "json_schema", "json_schema": {"type": "integer"}},
    "end": ")</call>",
}


@pytest.mark.parametrize(
    ("at_least_one", "stop_after_first", "good", "bad"),
    [
        (False, False, ["hi", "", "x <call>f(1)</call> y <call>f(2)</call>"], ["<call>g", "a <call>f(x)"]),
        (True, False, ["<call>f(1)</call>", "<call>f(1)</call> and <call>f(2)</call>"], ["hi", ""]),
        (True, True, ["<call>f(1)</call>"], ["<call>f(1)</call> more", "hi <call>f(1)</call>"]),
        (False, True, ["hi", "hi <call>f(1)</call>"], ["<call>f(1)</call> more"]),
    ],
)
def test_triggered_tags(
    takes: Any, at_least_one: bool, stop_after_first: bool, good: list[str], bad: list[str]
) -> None:
    form = {
        "type": "triggered_tags",
        "triggers": ["<call>"],
        "tags": [CALL],
        "at_least_one": at_least_one,
        "stop_after_first": stop_after_first,
    }
    wish = Wish(structural_tag={"type": "structural_tag", "format": form})
    assert [answer for answer in good if not takes(wish, answer)] == []
    assert [answer for answer in bad if takes(wish, answer)] == []


def test_older_structural_tags(takes: Any) -> None:
    tag = {
        "type": "structural_tag",
        "structures": [{"begin": "<f>", "schema": {"type": "boolean"}, "end": "</f>"}],
        "triggers": ["<f"],
    }
    wish = Wish(structural_tag=json.dumps(tag))
    assert takes(wish, "so <f>true</f> it is")
    assert not takes(wish, "so <f>maybe</f>")


def test_special_tokens_in_tags_are_tokens(takes: Any) -> None:
    form = {
        "type": "sequence",
        "elements": [
            {
                "type": "tag",
                "begin": "<|im_start|>think",
                "content": {"type": "any_text"},
                "end": "<|endoftext|>",
            },
            {
                "type": "or",
                "elements": [{"type": "const_string", "value": "A"}, {"type": "regex", "pattern": "b+"}],
            },
            {"type": "tags_with_separator", "tags": [CALL], "separator": ";", "at_least_one": False},
        ],
    }
    wish = Wish(structural_tag={"format": form})
    assert takes(wish, "<|im_start|>think any text \n<|endoftext|>bb")
    assert takes(wish, "<|im_start|>think<|endoftext|>A<call>f(1)</call>;<call>f(2)</call>")
    assert not takes(wish, "think<|endoftext|>A")


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (Wish(regex="(a)\\1"), "regex"),
        (Wish(regex="(?=x)"), "regex"),
        (Wish(grammar="start: missing"), "grammar"),
        (Wish(grammar='start: start "a"'), "grammar"),
        (Wish(grammar="root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000), "grammar"),
        (Wish(grammar="(" * 30_000), "grammar"),
        (Wish(json="[1]"), "json"),
        (Wish(json="{"), "json"),
        (Wish(json="[" * 100_000), "json"),
        (Wish(structural_tag={"format": {"type": "magic"}}), "structural_tag.format.type"),
        (Wish(structural_tag={}), "structural_tag"),
        (
            Wish(
                structural_tag={
                    "format": {"type": "sequence", "elements": [{"type": "regex", "pattern": "("}]}
                }
            ),
            "structural_tag.format.elements[0].pattern",
        ),
        (
            Wish(structural_tag={"format": {"type": "triggered_tags", "triggers": ["<x"], "tags": [CALL]}}),
            "structural_tag.format.tags[0].begin",
        ),
        (
            Wish(
                structural_tag={
                    "structures": [{"begin": "<", "schema": {"not": {}}, "end": ""}],
                    "triggers": ["<"],
                }
            ),
            "structural_tag.structures[0].schema.not",
        ),
        (
            Wish(
                structural_tag={
                    "format": {"type": "sequence", "elements": [{"type": "any_text"}, {"type": "any_text"}]}
                }
            ),
            "structural_tag.format.elements[0]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(compiler: GrammarCompiler, wish: Wish, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        compiler.compile(wish)
    assert caught.value.param == f"structured_outputs.{param}"
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(), "none is given"),
        (Wish(regex="a", choice=["a"]), "regex and choice are given"),
        (Wish(json_object=False), "none is given"),
        (Wish(choice=[]), "choice"),
        (Wish(choice=["a", ""]), "choice[1]"),
        (Wish(regex=""), "regex"),
        (Wish(regex="a" * 10**6), "regex"),
        (Wish(json=5), "json"),  # type: ignore[arg-type]
        (Wish(json={}, whitespace_pattern=""), "whitespace_pattern"),
        (Wish(json={}, whitespace_pattern=" ", disable_any_whitespace=True), "contradicts"),
        (Wish(json={}, begin_after=[]), "begin_after"),
    ],
)
def test_shape(wish: Wish, words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        SamplingParams(structured_outputs=wish).check(100)


@pytest.mark.parametrize("params", [{"ignore_eos": True}, {"min_tokens": 3}])
def test_what_a_form_contradicts(params: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="contradicts"):
        SamplingParams(structured_outputs=Wish(json={}), **params).check(100)


def test_rows_catch_up(compiler: GrammarCompiler, matchers: Matchers, words: Words) -> None:
    form = Wish(canonical=compiler.compile(Wish(choice=["abc"])), begin_after=[258, 10])
    [a, b] = words.tokenizer.encode("ab", add_special_tokens=False)
    row = matchers.open(form, [258, 258])
    assert row.waits and row.ready() is None
    row.take(10)
    assert not row.waits
    row.take(a)
    matcher = row.ready()
    assert matcher is not None and matcher.compute_ff_bytes() == b"bc"
    replayed = matchers.open(form, [258, 258, 10, a]).ready()
    assert replayed is not None and replayed.compute_ff_bytes() == b"bc"
    row.take(a)
    assert row.ready() is None and row.failure is not None
    assert matcher is not replayed
    assert b != a


def test_a_grammar_that_cannot_be_compiled_is_the_rows_failure(matchers: Matchers) -> None:
    row = matchers.open(Wish(canonical="start: missing"), [])
    assert row.ready() is None
    assert row.failure is not None and "missing" in row.failure


def test_a_grammar_that_grows_too_complex_says_so(compiler: GrammarCompiler, matchers: Matchers) -> None:
    """Some do so when a token is taken, not when a mask is filled."""
    regex = "^ac" + "a" * 22 + r"\s" + "a" * 180 + "+" + "a" * 16 + "+" + "a" * 140 + "$"
    row = matchers.open(Wish(canonical=compiler.compile(Wish(regex=regex))), [])
    mask_MW = np.zeros((1, -(-(VOCAB_SIZE + 5) // 32)), dtype=np.int32)
    for _ in range(60):
        if row.fill(mask_MW, 0):
            row.take(int(np.unpackbits(mask_MW.view(np.uint8), bitorder="little").argmax()))
    assert row.failure is not None and "too complex" in row.failure


def test_answers_of_each_kind_end(compiler: GrammarCompiler, follower: Follower) -> None:
    for wish in (Wish(regex="[a-z]{3}"), Wish(choice=["x", "yy"]), Wish(grammar='start: "a" "b"?')):
        assert follower.answer(compiler.compile(wish), 0) in ("x", "yy", "a", "ab") or wish.kind == "regex"


def test_cache_is_bounded_in_bytes() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    for number in range(20):
        cache.put(str(number), number, 30)
    assert (len(cache), cache.num_bytes) == (3, 90)
    assert cache.get("17") == 17
    cache.put("20", 20, 30)
    assert cache.get("18") is None and cache.get("17") == 17
    cache.put("large", 1, 101)
    assert cache.get("large") is None
    cache.put("17", 5, 10)
    assert (cache.get("17"), cache.num_bytes) == (5, 70)
