"""Text from deltas: stop strings across tokens, stop tokens hidden, logprobs in order."""

from __future__ import annotations

from typing import Any

import pytest

from octavo import SamplingParams
from octavo.engine.request_state import PreparedRequest
from octavo.engine.sample import Sample
from octavo.messages.request import EngineRequest
from octavo.messages.result import FinishReason, RequestDelta, TokenLogprobs
from octavo.tokens.stop_strings import StopAutomaton
from octavo.tokens.tokenizer import Tokenizer

UNSEEDED: dict[str, Any] = {"eos_token_ids": [], "random_key": 0, "arrival_time": 0.0}


def feed(
    tokenizer: Tokenizer,
    text: str,
    chunk: int,
    finish: FinishReason | None = FinishReason.LENGTH,
    **values: Any,
) -> tuple[Sample, bool, list[str]]:
    """A sample fed `text` in deltas of `chunk` tokens, whether it asked to abort, the text after each."""
    params = SamplingParams(max_tokens=None, **values)
    stops = StopAutomaton(params.stop_strings) if params.stop else None
    sample = Sample(tokenizer, params, 0, tokenizer.encode("x"), stops)
    ids = tokenizer.encode(text)
    shown, aborts = [], False
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        is_last = start + chunk >= len(ids)
        delta = RequestDelta(request_id="r", token_ids=part, finish_reason=finish if is_last else None)
        aborts = sample.add(delta) or aborts
        shown.append(sample.text)
        if sample.is_finished:
            break
    return sample, aborts, shown


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_a_stop_string_ends_the_sample_and_never_leaks(tokenizer: Tokenizer, chunk: int) -> None:
    sample, _, shown = feed(tokenizer, "one two STOP three", chunk, stop=["STOP", "STALE"])
    assert sample.text == "one two "
    assert sample.finish_reason == "stop"
    assert sample.stop_reason == "STOP"
    assert all("S" not in text for text in shown)


def test_a_stop_string_may_stay_in_the_text(tokenizer: Tokenizer) -> None:
    sample, _, _ = feed(tokenizer, "one STOP two", 1, stop="STOP", include_stop_str_in_output=True)
    assert sample.text == "one STOP"


def test_the_core_is_told_only_when_it_still_runs(tokenizer: Tokenizer) -> None:
    assert feed(tokenizer, "a STOP b", 1, stop="STOP")[1] is True
    assert feed(tokenizer, "a STOP", 100, stop="STOP")[1] is False


def test_held_back_text_appears_at_the_end(tokenizer: Tokenizer) -> None:
    sample, _, _ = feed(tokenizer, "one STO", 1, stop="STOP")
    assert sample.text == "one STO"
    assert sample.finish_reason == "length"


def test_stop_strings_wait_for_min_tokens(tokenizer: Tokenizer) -> None:
    sample, _, _ = feed(tokenizer, "STOP one STOP two", 1, stop="STOP", min_tokens=6)
    assert sample.text == "STOP one "


def test_characters_are_never_cut(tokenizer: Tokenizer) -> None:
    sample, _, shown = feed(tokenizer, "aé日🎉z", 1)
    assert sample.text == "aé日🎉z"
    assert all("\ufffd" not in text for text in shown)


def test_the_stop_token_is_not_part_of_the_text(tokenizer: Tokenizer) -> None:
    stop_id = tokenizer.encode("!")[0]
    for include, text in ((False, "hi"), (True, "hi!")):
        sample = Sample(
            tokenizer, SamplingParams(stop_token_ids=[stop_id], include_stop_str_in_output=include), 0, [1]
        )
        sample.add(
            RequestDelta(
                request_id="r",
                token_ids=tokenizer.encode("hi!"),
                finish_reason=FinishReason.STOP,
                stop_token_id=stop_id,
            )
        )
        assert sample.text == text
        assert sample.stop_reason == stop_id
        assert sample.token_ids[-1] == stop_id


def test_without_detokenize_there_is_no_text(tokenizer: Tokenizer) -> None:
    sample, _, _ = feed(tokenizer, "hello", 1, detokenize=False)
    assert sample.text == ""
    assert sample.token_ids == tokenizer.encode("hello")


def test_logprobs_keep_the_sampled_token_first(tokenizer: Tokenizer) -> None:
    sample = Sample(tokenizer, SamplingParams(logprobs=2), 0, [1])
    logprobs = TokenLogprobs([5, 7, 5], [-2.0, -0.5, -2.0], 2)
    sample.add(RequestDelta(request_id="r", token_ids=[5], logprobs=[logprobs]))
    assert sample.logprobs is not None
    (position,) = sample.logprobs
    assert list(position) == [5, 7]
    assert (position[5].rank, position[7].rank) == (2, 1)
    assert sample.cumulative_logprob == -2.0


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_tokens_behind_a_stop_string_are_not_counted(tokenizer: Tokenizer, chunk: int) -> None:
    """Forced tokens come several at a time, and the answer may end among them."""
    params = SamplingParams(max_tokens=None, stop="STOP")
    ids = tokenizer.encode("one STOP two three")
    samples = [EngineRequest(request_id="r", prompt_token_ids=[1], params=params, max_tokens=99, **UNSEEDED)]
    prepared = PreparedRequest(
        request_id="r",
        prompt=None,
        prompt_token_ids=[1],
        params=params,
        samples=samples,
        stops=StopAutomaton(params.stop_strings),
    )
    state = prepared.open(tokenizer)
    for start in range(0, len(ids), chunk):
        state.add(0, RequestDelta(request_id="r", token_ids=ids[start : start + chunk]), 1.0)
    output = state.take_output()
    assert output is not None and output.metrics is not None
    assert output.metrics.num_output_tokens == len(output.outputs[0].token_ids) == len("one STOP")


def test_samples_share_what_takes_long_to_make(tokenizer: Tokenizer) -> None:
    """The longest stop strings take 40 ms of the event loop; 128 samples took 6.6 s."""
    params = SamplingParams(n=3, stop=["one", "two"])
    sample = EngineRequest(request_id="r", prompt_token_ids=[1], params=params, max_tokens=9, **UNSEEDED)
    prepared = PreparedRequest(
        request_id="r",
        prompt=None,
        prompt_token_ids=[1],
        params=params,
        samples=[sample] * 3,
        stops=StopAutomaton(params.stop_strings),
    )
    state = prepared.open(tokenizer)
    finders = [sample._stops for sample in state.samples]
    assert len({id(finder) for finder in finders}) == 3
    assert len({id(finder._automaton) for finder in finders if finder is not None}) == 1
