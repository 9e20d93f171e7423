"""Beam search on a tiny model in float32 against transformers' generate(num_beams=...)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, AsyncLLM, BeamSearchParams, RequestError
from octavo.config.root import EngineConfig
from tests.tiny import VOCAB_SIZE, save_model

EOS = 258
OPTIONS = {"max_model_len": 256, "num_gpu_blocks_override": 200, "block_size": 4, "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that likes to end: its end of text is no rare token."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path_factory.mktemp("beams"), hidden_size=48, initializer_range=0.15)
    weights = load_file(folder / "model.safetensors")
    head = weights["lm_head.weight"]
    head[EOS] = head.mean(0) + 2.0 * head[torch.randperm(VOCAB_SIZE)[:3]].sum(0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(str(folder), **OPTIONS) as llm:
        yield llm


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).float().eval()


def prompts() -> list[list[int]]:
    source = random.Random(11)
    return [[source.randrange(256) for _ in range(length)] for length in (1, 5, 17, 40)]


def expected(reference: Any, prompt: list[int], **options: Any) -> list[tuple[list[int], float]]:
    """(tokens without what fills them up, score) of each beam."""
    import torch

    options.setdefault("eos_token_id", EOS)
    with torch.no_grad():
        found = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            num_return_sequences=options["num_beams"],
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=300,
            **options,
        )
    answers = [[t for t in row[len(prompt) :].tolist() if t != 300] for row in found.sequences]
    return list(zip(answers, found.sequences_scores.tolist(), strict=True))


CASES: list[dict[str, Any]] = [
    {"beam_width": 2},
    {"beam_width": 2, "length_penalty": 0.0},
    {"beam_width": 4},
    {"beam_width": 4, "length_penalty": 2.0},
    {"beam_width": 3, "length_penalty": -1.0},
    {"beam_width": 4, "early_stopping": True},
    {"beam_width": 4, "early_stopping": "never", "length_penalty": 1.5},
    {"beam_width": 5, "ignore_eos": True},
    {"beam_width": 8, "max_tokens": 1},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers_and_scores_are_those_of_transformers(llm: LLM, reference: Any, case: dict[str, Any]) -> None:
    params = BeamSearchParams(**{"max_tokens": 12, **case})
    outputs = llm.beam_search(prompts(), params)
    for prompt, output in zip(prompts(), outputs, strict=True):
        theirs = expected(
            reference,
            prompt,
            num_beams=params.beam_width,
            max_new_tokens=params.max_tokens,
            length_penalty=params.length_penalty,
            early_stopping=params.early_stopping,
            **({"eos_token_id": None} if params.ignore_eos else {}),
        )
        ours = [(beam.tokens[len(prompt) :], beam.score) for beam in output.sequences]
        assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in theirs]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)


def test_some_answers_end_by_themselves(llm: LLM) -> None:
    """Otherwise the test above would show little."""
    reasons = {
        beam.finish_reason
        for output in llm.beam_search(prompts(), BeamSearchParams(beam_width=4, max_tokens=12))
        for beam in output.sequences
    }
    assert reasons == {"stop", "length"}


def test_what_a_sequence_tells(llm: LLM) -> None:
    prompt = prompts()[2]
    shown = BeamSearchParams(beam_width=4, max_tokens=12, include_stop_str_in_output=True)
    (hidden,) = llm.beam_search(prompt, BeamSearchParams(beam_width=4, max_tokens=12))
    (output,) = llm.beam_search({"prompt_token_ids": prompt}, shown)
    for beam, without in zip(output.sequences, hidden.sequences, strict=True):
        answer = beam.tokens[len(prompt) :]
        assert beam.tokens == without.tokens and beam.tokens[: len(prompt)] == prompt
        total = sum(position[token].logprob for token, position in zip(answer, beam.logprobs, strict=True))
        assert total == pytest.approx(beam.cum_logprob)
        assert beam.score == pytest.approx(beam.cum_logprob / len(answer))
        ends = beam.finish_reason == "stop"
        assert (answer[-1] == EOS) == ends
        assert beam.text == without.text + ("<|im_end|>" if ends else "")


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"beam_width": 0}, "beam_width"),
        ({"beam_width": 10**6}, "beam_width"),
        ({"beam_width": 2, "max_tokens": 0}, "max_tokens"),
        ({"beam_width": 2, "max_tokens": 10**6}, "max_tokens"),
        ({"beam_width": 2, "length_penalty": float("nan")}, "length_penalty"),
        ({"beam_width": 2, "early_stopping": "soon"}, "early_stopping"),
    ],
)
def test_wrong_wishes_are_refused(llm: LLM, values: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        llm.beam_search([[1, 2]], BeamSearchParams(**values))
    assert caught.value.param == param
    assert llm.beam_search([[1, 2]], BeamSearchParams(beam_width=2, max_tokens=1))


async def test_the_asynchronous_engine_finds_the_same_and_leaves_nothing_behind(
    folder: Path, llm: LLM
) -> None:
    engine = await AsyncLLM.start(
        EngineConfig.from_options({"model": str(folder), **OPTIONS}), in_process=True
    )
    prompt, params = prompts()[1], BeamSearchParams(beam_width=4, max_tokens=12, logprobs=2)
    (expected_output,) = llm.beam_search([prompt], params)
    (output,) = [found async for found in engine.beam_search(prompt, params)]
    assert [part.token_ids for part in output.outputs] == [
        beam.tokens[len(prompt) :] for beam in expected_output.sequences
    ]
    for part in output.outputs:
        assert part.logprobs is not None and len(part.logprobs) == len(part.token_ids)
        assert all(next(iter(at)) == token for at, token in zip(part.logprobs, part.token_ids, strict=True))
        assert all(2 <= len(at) <= 3 for at in part.logprobs)

    slow = BeamSearchParams(beam_width=8, max_tokens=200, ignore_eos=True)
    running = asyncio.ensure_future(anext(engine.beam_search(prompt, slow)))
    await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert engine.open_request_ids() == []
    stream = engine.beam_search(prompt, slow, request_id="mine")
    running = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.2)
    await engine.abort("mine")
    assert {part.finish_reason for part in (await running).outputs} == {"abort"}
    await stream.aclose()
    await engine.drain(5.0)
    assert engine.stats().kv_usage == 0.0
    await engine.shutdown()
