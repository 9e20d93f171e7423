"""all-MiniLM-L6-v2 against plain transformers, on a hundred sentences of every length."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from octavo import LLM
from octavo.weights.sources.find import find_model

pytestmark = pytest.mark.real

WORDS = (Path(__file__).resolve().parents[2] / "docs" / "architecture.md").read_text().split()


def sentences() -> list[str]:
    source = random.Random(2)
    return [" ".join(source.choices(WORDS, k=1 + index * 2)) for index in range(99)] + [
        "héllo, wörld: 你好 👋"
    ]


def test_embeddings_are_the_reference_s() -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = find_model("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    given = sentences()
    with LLM("minilm") as llm:
        assert llm.config.model.max_model_len == 256
        outputs = llm.embed(given, use_tqdm=False, truncate_prompt_tokens=-1)
    for text, output in zip(given, outputs, strict=True):
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        assert output.prompt_token_ids == encoded.input_ids[0].tolist()
        with torch.inference_mode():
            wanted_E = model(**encoded).last_hidden_state[0].mean(0)
        ours_E = torch.tensor(output.outputs.embedding)
        assert torch.cosine_similarity(ours_E, wanted_E, dim=0).item() > 0.9999
        assert abs(ours_E.norm().item() - 1) < 1e-5
