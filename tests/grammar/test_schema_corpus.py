"""Every schema of the corpus is answered rightly, or refused with a place, by the real masks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence

import jsonschema
import pytest

from octavo.base.errors import RequestError
from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.limits import COMPILE_WALL_S
from octavo.grammar.matchers import Matchers
from octavo.grammar.vocabulary import Words, vocabulary_of
from octavo.messages.structured import StructuredOutputsParams
from octavo.tokens.tokenizer import Tokenizer
from tests.grammar.follow import Follower
from tests.grammar.schema_corpus import REFUSED, SIMPLE, Schema, corpus

CORPUS = corpus()
MAY_NOT_END = ("hostile", "format", "anything", "object", "array", "required but not named", "five types")


@pytest.fixture(scope="module")
def real(real_tokenizer: Tokenizer) -> Iterator[tuple[Words, Follower]]:
    words = Words(tokenizer=real_tokenizer, eos_token_ids=real_tokenizer.eos_token_ids)
    matchers = Matchers(lambda: words, real_tokenizer.vocab_size)
    yield words, Follower(real_tokenizer, matchers)
    matchers.close()


def test_the_corpus_is_large() -> None:
    assert len({json.dumps(schema) for _, schema in CORPUS}) >= 300


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_place(name: str, compiler: GrammarCompiler) -> None:
    schema, place = REFUSED[name]
    with pytest.raises(RequestError) as caught:
        compiler.compile(StructuredOutputsParams(json=schema))
    expected = "structured_outputs.json" + (f".{place}" if place else "")
    assert (caught.value.param or "").startswith(expected)
    assert place.split(".")[-1].split("[")[0] in caught.value.message


@pytest.mark.parametrize("name", SIMPLE)
def test_answers_in_bytes_are_valid(name: str, compiler: GrammarCompiler, follower: Follower) -> None:
    check_answers(name, SIMPLE[name], compiler.compile(StructuredOutputsParams(json=SIMPLE[name])), follower)


async def test_quick_part_of_the_corpus(real: tuple[Words, Follower]) -> None:
    quick = [(name, schema) for name, schema in CORPUS if not name.startswith("hostile")]
    await check_corpus(quick[:40] + quick[-30:], *real)


@pytest.mark.slow
async def test_whole_corpus(real: tuple[Words, Follower]) -> None:
    await check_corpus(CORPUS, *real)


async def check_corpus(part: Sequence[tuple[str, Schema]], words: Words, follower: Follower) -> None:
    desk = GrammarDesk(lambda: vocabulary_of(words, words.tokenizer.vocab_size))
    try:
        await desk.check(StructuredOutputsParams(json_object=True))  # starts a helper
        num_answered = 0
        for name, schema in part:
            began = time.monotonic()
            try:
                checked = await desk.check(StructuredOutputsParams(json=schema))
            except RequestError as error:
                assert error.param is not None and error.param.startswith("structured_outputs.json"), name
                assert not name.startswith("random") and name not in SIMPLE, f"{name}: {error}"
                # A helper may have had to be started again.
                assert time.monotonic() - began < COMPILE_WALL_S + 3.0, name
                continue
            assert not name.startswith("refused"), name
            assert checked.canonical is not None
            # Python's own regular expressions never end on the bombs: those are followed, not validated.
            is_bomb = name.startswith("hostile: pattern")
            await asyncio.to_thread(
                check_answers, name, {} if is_bomb else schema, checked.canonical, follower
            )
            num_answered += 1
        assert num_answered > len(part) / 2
    finally:
        await desk.close()


def check_answers(name: str, schema: Schema, canonical: str, follower: Follower) -> None:
    """A few answers; each that ends is valid."""
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for seed in range(3):
        answer = follower.answer(canonical, seed)
        if answer is None:
            assert name.startswith(MAY_NOT_END), f"{name} did not end"
            continue
        errors = list(validator.iter_errors(json.loads(answer)))
        assert not errors, f"{name}: {answer!r}: {errors[0].message}"
