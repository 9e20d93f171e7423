"""Prompts as vectors: what the checkpoint's embedding holds for tokens answers exactly as the tokens do."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save

from octavo import LLM, SamplingParams
from octavo.base.errors import EngineError, RequestError
from tests.conformance.test_generation import MODES, prompts
from tests.end_to_end.server_process import serving
from tests.tiny import VOCAB_SIZE, save_model

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 24},
    "qwen2": {"tie_word_embeddings": True},
    "gemma3_text": {"sliding_window": 24},
}
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, logprobs=2)


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), request.param, **FAMILIES[request.param])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def embedded(model: Path, token_ids: list[int]) -> torch.Tensor:
    weights = load_file(model / "model.safetensors")
    return weights["model.embed_tokens.weight"][token_ids]


def as_vectors(model: Path, many: list[list[int]]) -> list[dict[str, Any]]:
    return [{"prompt_embeds": embedded(model, token_ids)} for token_ids in many]


def open_llm(model: Path, **options: Any) -> LLM:
    return LLM(str(model), max_model_len=256, enable_prompt_embeds=True, **options)


def answers(outputs: list[Any]) -> list[list[int]]:
    """Tokens alone: a text may begin with the rest of a character that only a prompt of tokens knows."""
    return [sample.token_ids for output in outputs for sample in output.outputs]


def check_same(ours: list[Any], theirs: list[Any]) -> None:
    assert answers(ours) == answers(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one.outputs[0].logprobs, other.outputs[0].logprobs, strict=True):
            assert a.keys() == b.keys()
            assert all(abs(a[token].logprob - b[token].logprob) < 1e-4 for token in a)


@pytest.mark.parametrize("mode", MODES)
def test_vectors_answer_as_their_tokens(model: Path, mode: str) -> None:
    many = prompts(longest=150)
    with open_llm(model, **MODES[mode]) as llm:
        theirs = llm.generate(many, GREEDY, use_tqdm=False)
        before = llm.stats().num_preemptions
        ours = llm.generate(as_vectors(model, many), GREEDY, use_tqdm=False)
        llm._core.check()
        assert llm.stats().num_preemptions > before or "preempting" not in mode
    check_same(ours, theirs)
    assert [len(output.prompt_token_ids) for output in ours] == [len(ids) for ids in many]
    assert not any(any(output.prompt_token_ids) for output in ours)


def test_mixed_with_tokens_in_the_same_steps(llama: Path) -> None:
    many = prompts(longest=150)
    with open_llm(llama, max_num_batched_tokens=32) as llm:
        theirs = llm.generate(many, GREEDY, use_tqdm=False)
        mixed = [
            prompt if index % 2 else vectors
            for index, (prompt, vectors) in enumerate(zip(many, as_vectors(llama, many), strict=True))
        ]
        check_same(llm.generate(mixed, GREEDY, use_tqdm=False), theirs)


def test_only_equal_vectors_share_the_prefix_cache(llama: Path) -> None:
    token_ids = prompts(longest=150)[8]
    vectors = embedded(llama, token_ids)
    other = vectors.clone()
    other[0, 0] += 0.5  # the placeholders of both are the same
    with open_llm(llama) as llm:

        def cached(prompt: Any, **options: Any) -> int:
            (output,) = llm.generate([prompt], GREEDY, use_tqdm=False, **options)
            return output.num_cached_tokens

        assert cached([0] * len(token_ids)) == 0
        assert cached({"prompt_embeds": vectors}) == 0, "placeholders are not the tokens they look like"
        assert cached({"prompt_embeds": vectors.clone()}) > 100
        assert cached({"prompt_embeds": other}) == 0
        assert cached({"prompt_embeds": vectors.half()}) == 0
        assert cached({"prompt_embeds": vectors}, cache_salt="mine") == 0
        assert cached(token_ids) == 0
        (hit,) = llm.generate([{"prompt_embeds": vectors}], GREEDY, use_tqdm=False)
        (plain,) = llm.generate([token_ids], GREEDY, use_tqdm=False)
        check_same([hit], [plain])


def test_what_tokens_never_say_is_read_too(llama: Path) -> None:
    """Against transformers' own inputs_embeds."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32, attn_implementation="eager")
    vectors = torch.randn(37, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = reference(inputs_embeds=vectors[None]).logits[0, -1].log_softmax(-1)
    with open_llm(llama, max_num_batched_tokens=16) as llm:
        (output,) = llm.generate({"prompt_embeds": vectors}, GREEDY, use_tqdm=False)
    token = output.outputs[0].token_ids[0]
    assert token == int(expected.argmax())
    assert abs(output.outputs[0].logprobs[0][token].logprob - expected[token].item()) < 1e-4


def test_files_types_samples_and_forms(llama: Path) -> None:
    from octavo import StructuredOutputsParams

    token_ids = prompts(longest=150)[4]
    vectors = embedded(llama, token_ids)
    drawn = SamplingParams(temperature=1.0, seed=5, n=3, max_tokens=8, ignore_eos=True)
    choice = SamplingParams(
        temperature=0, max_tokens=20, structured_outputs=StructuredOutputsParams(choice=["yes", "certainly"])
    )
    with open_llm(llama) as llm:
        for params in (GREEDY, drawn, choice):
            theirs = llm.generate([token_ids], params, use_tqdm=False)
            for given in (vectors, save({"x": vectors}), vectors.T.contiguous().T):
                ours = llm.generate([{"prompt_embeds": given}], params, use_tqdm=False)
                assert answers(ours) == answers(theirs)
        halves = [vectors.to(torch.bfloat16), save({"any": vectors.to(torch.float16)})]
        outputs = llm.generate([{"prompt_embeds": half} for half in halves], GREEDY, use_tqdm=False)
        wide = [{"prompt_embeds": half.float()} for half in (halves[0], vectors.to(torch.float16))]
        check_same(outputs, llm.generate(wide, GREEDY, use_tqdm=False))


def test_refusals_leave_the_engine_as_it_was(llama: Path) -> None:
    good = embedded(llama, [1, 2, 3])
    bad: list[tuple[Any, SamplingParams, str]] = [
        (good[:, :47], GREEDY, "48"),
        (good[None], GREEDY, "shape"),
        (good[:0], GREEDY, "shape"),
        (good.long(), GREEDY, "int64"),
        (good.double(), GREEDY, "float64"),
        (good.to_sparse(), GREEDY, "sparse"),
        (good * float("nan"), GREEDY, "NaN"),
        (good / 0, GREEDY, "NaN"),
        (good.repeat(100, 1), GREEDY, "tokens"),
        (b"\x80\x04\x95", GREEDY, "safetensors"),
        (good.tolist(), GREEDY, "tensor"),
        (good, SamplingParams(prompt_logprobs=1), "prompt_logprobs"),
        (good, SamplingParams(truncate_prompt_tokens=1), "truncate_prompt_tokens"),
        (good, SamplingParams(repetition_penalty=1.1), "repetition_penalty"),
        (good, SamplingParams(dry_multiplier=1.0), "dry_multiplier"),
    ]
    with open_llm(llama) as llm:
        for vectors, params, word in bad:
            with pytest.raises(RequestError, match=word):
                llm.generate([{"prompt_embeds": vectors}], params, use_tqdm=False)
        with pytest.raises(RequestError, match="not both"):
            llm.generate([{"prompt_embeds": good, "prompt": "x"}], GREEDY, use_tqdm=False)
        assert llm.generate([{"prompt_embeds": good, "prompt": ""}], GREEDY, use_tqdm=False)
        llm._core.check()


def test_numbers_that_overflow_inside_harm_nobody_else(llama: Path) -> None:
    """Finite, and infinite once squared."""
    huge = torch.full((20, 48), 3e38)
    huge[::2] *= -1
    with open_llm(llama) as llm:
        (before,) = llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)
        for vectors in (huge, huge / 1e19, torch.zeros(5, 48)):
            # Whether the model makes anything of it is its own affair.
            with contextlib.suppress(EngineError):
                (_, beside) = llm.generate([{"prompt_embeds": vectors}, [1, 2, 3]], GREEDY, use_tqdm=False)
                check_same([beside], [before])
            (after,) = llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)
            check_same([after], [before])
        llm._core.check()


def test_numbers_beyond_the_models_type_are_refused(llama: Path) -> None:
    with (
        open_llm(llama, dtype="bfloat16") as llm,
        pytest.raises(RequestError, match="bfloat16"),
    ):
        llm.generate([{"prompt_embeds": torch.full((2, 48), 3.4e38)}], GREEDY, use_tqdm=False)


def test_off_unless_told(llama: Path) -> None:
    with (
        LLM(str(llama), max_model_len=64) as llm,
        pytest.raises(RequestError, match="enable-prompt-embeds"),
    ):
        llm.generate([{"prompt_embeds": embedded(llama, [1])}], GREEDY)


def test_tokens_of_the_vocabulary_are_what_is_looked_up(llama: Path) -> None:
    """The tests above mean something: other vectors give other answers."""
    token_ids = prompts(longest=150)[5]
    with open_llm(llama) as llm:
        (plain,) = llm.generate([token_ids], GREEDY, use_tqdm=False)
        shifted = [(token + 1) % VOCAB_SIZE for token in token_ids]
        (other,) = llm.generate(as_vectors(llama, [shifted]), GREEDY, use_tqdm=False)
    assert answers([plain]) != answers([other])


def test_over_http_and_the_wire_to_the_core(llama: Path, tmp_path: Path) -> None:
    token_ids = prompts(longest=150)[6]
    file = base64.b64encode(save({"prompt_embeds": embedded(llama, token_ids)})).decode()
    wishes = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    flags = ("--enable-prompt-embeds", "--max-model-len", "256")
    with serving(llama, *flags, log=tmp_path / "log") as server:
        replies = []
        for prompt in ({"prompt": token_ids}, {"prompt_embeds": file}, {"prompt_embeds": [file] * 2, "n": 2}):
            reply = httpx.post(f"{server.url}/v1/completions", json={**wishes, **prompt}, timeout=60)
            assert reply.status_code == 200, reply.text
            replies.append(reply.json())
    expected = replies[0]["choices"][0]["token_ids"]
    assert [choice["token_ids"] for reply in replies for choice in reply["choices"]] == [expected] * 6
    assert replies[1]["usage"]["prompt_tokens"] == len(token_ids)
