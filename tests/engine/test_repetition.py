"""Repetition detection: vLLM's definition written out, and how an answer ends by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo import RequestError, SamplingParams
from octavo.engine.repetition import Repetition
from octavo.engine.sample import Sample
from octavo.messages.result import FinishReason, RequestDelta
from octavo.messages.samplers import RepetitionDetectionParams
from octavo.tokens.stop_strings import StopAutomaton
from octavo.tokens.tokenizer import Tokenizer


def goes_round(token_ids: list[int], smallest: int, largest: int, count: int) -> bool:
    return any(
        size * count <= len(token_ids)
        and token_ids[len(token_ids) - size * count :] == token_ids[len(token_ids) - size :] * count
        for size in range(max(1, smallest), largest + 1)
    )


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 2), max_size=60),
    sizes=st.tuples(st.integers(0, 9), st.integers(1, 9)).map(sorted),
    count=st.integers(2, 5),
)
def test_any_answer_ends_where_the_definition_says(tokens: list[int], sizes: list[int], count: int) -> None:
    smallest, largest = sizes
    params = RepetitionDetectionParams(max_pattern_size=largest, min_pattern_size=smallest, min_count=count)
    repetition = Repetition(params)
    for number, token in enumerate(tokens, start=1):
        assert repetition.add(token) == goes_round(tokens[:number], smallest, largest, count)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("stop", [None, "nothing of the kind"])
def test_the_sample_ends_with_the_token_that_completes_it(
    tokenizer: Tokenizer, chunk: int, stop: str | None
) -> None:
    detection = RepetitionDetectionParams(max_pattern_size=6, min_pattern_size=2, min_count=3)
    params = SamplingParams(max_tokens=None, repetition_detection=detection, stop=stop)
    params.check(300)
    stops = None if stop is None else StopAutomaton([stop])
    sample = Sample(tokenizer, params, 0, tokenizer.encode("x"), stops)
    ids = tokenizer.encode("so abcabcabcabcabc")
    for start in range(0, len(ids), chunk):
        delta = RequestDelta(request_id="r", token_ids=ids[start : start + chunk])
        if sample.add(delta):
            break
    assert (sample.finish_reason, sample.stop_reason) == ("stop", "repetition_detected")
    assert sample.text == "so abcabcabc" and len(sample.token_ids) == 12


def test_not_before_min_tokens(tokenizer: Tokenizer) -> None:
    detection = RepetitionDetectionParams(max_pattern_size=1, min_count=2)
    params = SamplingParams(max_tokens=None, min_tokens=5, repetition_detection=detection)
    sample = Sample(tokenizer, params, 0, tokenizer.encode("x"))
    assert sample.add(RequestDelta(request_id="r", token_ids=tokenizer.encode("aaaaaaaa")))
    assert sample.text == "aaaaa"


def test_the_cores_own_end_comes_through(tokenizer: Tokenizer) -> None:
    detection = RepetitionDetectionParams(max_pattern_size=4, min_count=9)
    sample = Sample(tokenizer, SamplingParams(repetition_detection=detection), 0, tokenizer.encode("x"))
    last = RequestDelta(request_id="r", token_ids=tokenizer.encode("ab"), finish_reason=FinishReason.LENGTH)
    assert not sample.add(last)
    assert sample.finish_reason == "length" and sample.text == "ab"


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"max_pattern_size": -1}, "max_pattern_size"),
        ({"max_pattern_size": 10**9, "min_count": 2}, "max_pattern_size"),
        ({"max_pattern_size": 2, "min_pattern_size": 3, "min_count": 2}, "min_pattern_size"),
        ({"max_pattern_size": 2}, "min_count"),
        ({"max_pattern_size": 2, "min_count": 1}, "min_count"),
        ({"max_pattern_size": 2, "min_count": True}, "min_count"),
    ],
)
def test_wrong_wishes_are_refused(values: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(repetition_detection=RepetitionDetectionParams(**values)).check(300)
    assert caught.value.param == f"repetition_detection.{param}"
