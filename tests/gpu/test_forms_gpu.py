"""Forms on a GPU, where the next step is handed over before the tokens of this one are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from octavo import LLM, SamplingParams, StructuredOutputsParams
from tests.tiny import save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FORM = StructuredOutputsParams(
    json={
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 6}, "kind": {"enum": ["red", "größer", None]}},
        "required": ["name", "kind"],
        "additionalProperties": False,
    },
    disable_any_whitespace=True,
)


@pytest.mark.parametrize("overlaps", [True, False])
def test_every_answer_fits_and_neighbours_do_not_notice(tmp_path: Path, overlaps: bool) -> None:
    folder = save_model(tmp_path / "model", head_dim=64, hidden_size=128, num_attention_heads=4)
    free = [SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)] * 4
    bound = [SamplingParams(seed=s, max_tokens=200, structured_outputs=FORM, logprobs=1) for s in range(12)]
    options = {"max_num_seqs": 8, "num_blocks": 100, "async_scheduling": overlaps, "dtype": "float32"}
    with LLM(str(folder), deterministic=True, **options) as llm:
        alone = llm.generate(["hello"] * 4, free, use_tqdm=False)
        outputs = llm.generate(["hello"] * 16, [*bound, *free], use_tqdm=False)
    for output in outputs[:12]:
        part = output.outputs[0]
        assert part.finish_reason == "stop"
        assert set(json.loads(part.text)) == {"name", "kind"}
    for ours, theirs in zip(outputs[12:], alone, strict=True):
        assert ours.outputs[0].token_ids == theirs.outputs[0].token_ids
