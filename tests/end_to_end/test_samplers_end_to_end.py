"""The rarer samplers through the whole engine: batches, preemption, seeds, and what the outputs say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, RepetitionDetectionParams, SamplingParams
from octavo.messages.samplers import ThinkingBudget
from tests.tiny import save_model

PROMPTS = [[index, 40 + index, 7, 9] for index in range(12)]
START, END = 200, [201, 202]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("samplers"))


MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "preempting": {"num_gpu_blocks_override": 16, "max_num_seqs": 12, "enable_prefix_caching": False},
}


@pytest.fixture(scope="module", params=list(MODES))
def llm(request: pytest.FixtureRequest, folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), max_model_len=256, dtype="float32", **MODES[request.param]) as llm:
        yield llm


def params(**values: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 30, "ignore_eos": True, "temperature": 0.8, "seed": 5, **values})


@pytest.mark.parametrize(
    "wish",
    [
        {"xtc_probability": 0.5, "xtc_threshold": 0.02, "min_p": 0.01},
        {"typical_p": 0.6},
        {"top_n_sigma": 1.0},
        {"dry_multiplier": 1.5, "dry_allowed_length": 1, "temperature": 0.0},
        {"repetition_penalty": 1.3, "repeat_last_n": 8},
    ],
    ids=str,
)
def test_a_seed_gives_the_same_answer_alone_and_in_a_batch(llm: LLM, wish: dict[str, Any]) -> None:
    """And another one than without the sampler, or it was not at work."""
    together = llm.generate(PROMPTS, params(**wish), use_tqdm=False)
    alone = [llm.generate([prompt], params(**wish), use_tqdm=False)[0] for prompt in PROMPTS[:3]]
    answers = [output.outputs[0].token_ids for output in together]
    assert [output.outputs[0].token_ids for output in alone] == answers[:3]
    neutral = {"temperature": wish.get("temperature", 0.8), "min_p": wish.get("min_p", 0.0)}
    plain = llm.generate(PROMPTS, params(**neutral), use_tqdm=False)
    assert answers != [output.outputs[0].token_ids for output in plain]


def test_dry_breaks_a_loop(llm: LLM) -> None:
    """Greedy, from a prompt that goes round: no stretch of eight tokens comes a third time."""
    loop = [3, 1, 4, 1, 5] * 6
    wish = params(temperature=0.0, dry_multiplier=5.0, dry_sequence_breakers=[], max_tokens=60)
    (output,) = llm.generate([loop], wish, use_tqdm=False)
    tokens = output.outputs[0].token_ids
    pieces = [tuple(tokens[start : start + 8]) for start in range(len(tokens) - 7)]
    assert max(pieces.count(piece) for piece in pieces) <= 2


def test_reasoning_ends_when_its_budget_is_used_up(llm: LLM) -> None:
    budgets = [0, 1, 5, 17]
    wishes = [
        params(
            thinking_budget=ThinkingBudget(
                start_token_ids=[START], end_token_ids=END, budget=budget, is_open=True
            ),
            logit_bias={START: -100.0, END[0]: -100.0},
        )
        for budget in budgets
    ]
    outputs = llm.generate(PROMPTS[:4], wishes, use_tqdm=False)
    for budget, output in zip(budgets, outputs, strict=True):
        tokens = output.outputs[0].token_ids
        assert tokens[budget : budget + 2] == END and len(tokens) == 30
        assert END[0] not in tokens[:budget] + tokens[budget + 2 :]


def test_reasoning_that_begins_in_the_answer(llm: LLM) -> None:
    wish = params(
        thinking_budget=ThinkingBudget(start_token_ids=[START], end_token_ids=END, budget=4),
        logit_bias={END[0]: -100.0},
        temperature=100.0,
        max_tokens=200,
    )
    for output in llm.generate(PROMPTS, wish, use_tqdm=False):
        tokens = output.outputs[0].token_ids
        for place, token in enumerate(tokens):
            inside = any(
                tokens[back : back + 2] != END and tokens[back] == START
                for back in range(max(0, place - 4), place)
            )
            if token == START and not inside and place + 7 <= len(tokens):
                assert tokens[place + 5 : place + 7] == END


def test_named_tokens_are_told_of_at_each_position(llm: LLM) -> None:
    named = params(logprob_token_ids=[9, 3], max_tokens=5, temperature=0.0)
    everything = params(logprobs=-1, max_tokens=5, temperature=0.0)
    (output,) = llm.generate([PROMPTS[0]], named, use_tqdm=False)
    (whole,) = llm.generate([PROMPTS[0]], everything, use_tqdm=False)
    answer, reference = output.outputs[0], whole.outputs[0]
    assert answer.token_ids == reference.token_ids
    assert answer.logprobs is not None and reference.logprobs is not None
    for token, found, expected in zip(answer.token_ids, answer.logprobs, reference.logprobs, strict=True):
        assert list(found) == list(dict.fromkeys([token, 9, 3]))
        for name in (token, 9, 3):
            assert found[name].logprob == pytest.approx(expected[name].logprob, abs=1e-5)
        assert found[token].rank == 1 and (token == 9 or found[9].rank is None)
    assert answer.cumulative_logprob == pytest.approx(reference.cumulative_logprob, abs=1e-4)


def test_an_answer_that_goes_round_ends(llm: LLM) -> None:
    detection = RepetitionDetectionParams(max_pattern_size=3, min_count=4)
    (output,) = llm.generate(
        [PROMPTS[1]],
        params(temperature=0.0, logit_bias={77: 100.0}, repetition_detection=detection, max_tokens=200),
        use_tqdm=False,
    )
    answer = output.outputs[0]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", "repetition_detected")
    assert answer.token_ids == [77] * 4


def test_long_prompts_are_cut_on_either_side(llm: LLM) -> None:
    for side, kept in (("left", [7, 8, 9]), ("right", [0, 1, 2])):
        wish = params(truncate_prompt_tokens=3, truncation_side=side, max_tokens=1)
        (output,) = llm.generate([list(range(10))], wish, use_tqdm=False)
        assert output.prompt_token_ids == kept
