"""Real models beside the default one, where they have been fetched, against transformers."""

from __future__ import annotations

import pytest

from octavo import LLM, SamplingParams
from octavo.base.errors import OctavoError
from octavo.weights.sources.find import find_model
from tests.reference import load_reference

PROMPTS = ("The capital of France is", "def fibonacci(n):\n    ", "Water boils at a temperature of")
NUM_TOKENS = 24


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b-instruct"])
def test_greedy_tokens_are_the_reference_s(name: str) -> None:
    import torch

    try:
        path = find_model(name, offline=True)
    except OctavoError as error:
        pytest.skip(f"not fetched (octavo pull {name}): {error}")
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
    with LLM(str(path), max_model_len=256) as llm:
        outputs = llm.generate(list(PROMPTS), params, use_tqdm=False)
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
