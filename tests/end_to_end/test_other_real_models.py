"""Real models beside the default one, where they have been fetched, against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from octavo.base.errors import OctavoError, RequestError
from octavo.weights.sources.find import find_model
from tests.reference import load_reference

PROMPTS = ("The capital of France is", "def fibonacci(n):\n    ", "Water boils at a temperature of")
NUM_TOKENS = 24


pytestmark = [pytest.mark.slow, pytest.mark.real]


def fetched(name: str) -> Path:
    try:
        return find_model(name, offline=True)
    except OctavoError as error:
        pytest.skip(f"not fetched (octavo pull {name}): {error}")


@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b-instruct", "gemma3-270m"])
def test_greedy_tokens_are_the_reference_s(name: str) -> None:
    check(fetched(name), list(PROMPTS), max_model_len=256)


def test_gemma_3_beyond_its_window() -> None:
    """More tokens than the 512 that most of its layers see, in chunks that cross the window's edge."""
    story = " ".join(f"On day {day} the sea was {'calm' if day % 3 else 'wild'}." for day in range(1, 80))
    check(fetched("gemma3-270m"), [story], max_model_len=1024, max_num_batched_tokens=200)


def test_a_base_model_completes_and_refuses_chat() -> None:
    with LLM(str(fetched("gemma3-270m")), max_model_len=256) as llm:
        params = SamplingParams(temperature=0, max_tokens=8)
        [output] = llm.generate([PROMPTS[0]], params, use_tqdm=False)
        assert "France" in output.outputs[0].text
        with pytest.raises(RequestError, match=r"no chat template.*--chat-template"):
            llm.chat([{"role": "user", "content": "Hello"}], params)


def check(path: Path, prompts: list[str], **options: int) -> None:
    import torch

    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
    with LLM(str(path), dtype="float32", **options) as llm:
        outputs = llm.generate(prompts, params, use_tqdm=False)
    reference = load_reference(path)
    for output in outputs:
        tokens = list(output.outputs[0].token_ids)
        ids = torch.tensor([[*output.prompt_token_ids, *tokens]])
        with torch.inference_mode():
            logits_TV = reference(ids).logits[0, len(output.prompt_token_ids) - 1 : -1].float()
        assert tokens == logits_TV.argmax(-1).tolist()
        expected = logits_TV.log_softmax(-1)
        for place, token in enumerate(tokens):
            found = output.outputs[0].logprobs[place][token].logprob
            assert abs(found - expected[place, token].item()) < 1e-3
