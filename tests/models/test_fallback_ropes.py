"""Ropes of transformers that look at the longest text of a step: each position's own rotation, for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from octavo import LLM, SamplingParams
from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.fallback.model import TransformersForCausalLM
from octavo.models.fallback.ropes import RopeTable, fix_ropes, held_still, moving_ropes
from tests.models.test_fallback_refused import config_of
from tests.tiny import save_model

CPU = torch.device("cpu")
DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0}}
SHORT = 48
"""Positions of the first training."""


def rope_of(model: TransformersForCausalLM) -> RopeTable:
    (rope,) = (module for module in model.modules() if isinstance(module, RopeTable))
    return rope


@pytest.mark.parametrize("family", ["cohere", "arcee"])
def test_a_dynamic_rope_turns_as_token_by_token_with_a_cache(tmp_path: Path, family: str) -> None:
    """Pairs side by side or apart; a prompt longer than the first training, in chunks, beside a short one."""
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", family, max_position_embeddings=SHORT, **DYNAMIC)
    prompts = [[(7 * index + 3) % 251 for index in range(length)] for length in (90, 20)]
    reference = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, ignore_eos=True)
    options: dict[str, Any] = {"max_model_len": 128, "max_num_batched_tokens": 32}
    with LLM(str(folder), model_impl="transformers", **options) as llm:
        outputs = llm.generate(prompts, params, use_tqdm=False)
    for ids, output in zip(prompts, outputs, strict=True):
        cache, rows = None, []
        with torch.inference_mode():
            for token in ids:
                step = reference(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
                cache = step.past_key_values
                rows.append(step.logits[0, -1].log_softmax(-1))
        for index, token in enumerate(ids[1:]):
            ours = output.prompt_logprobs[index + 1][token].logprob
            assert abs(ours - rows[index][token].item()) < 3e-4


@pytest.mark.parametrize("longest", [4, 30, 200])
def test_rows_are_what_the_module_gives_for_a_text_that_ends_there(longest: int) -> None:
    placement = Placement(dtype=torch.float32, device=CPU, max_positions=longest)
    config = config_of("arcee", max_position_embeddings=SHORT, **DYNAMIC)
    table = rope_of(TransformersForCausalLM(config, placement))
    fresh = TransformersForCausalLM(config, Placement(dtype=torch.float32, device=CPU, max_positions=1))
    assert len(table.cosines_PD) == max(longest, 10)
    from transformers import AutoConfig
    from transformers.models.arcee.modeling_arcee import ArceeRotaryEmbedding

    values = {name: value for name, value in config.items() if name != "model_type"}
    for position in (0, 3, 29, SHORT - 1, SHORT, 199):
        if position >= longest:
            break
        rope = ArceeRotaryEmbedding(AutoConfig.for_model("arcee", **values))
        cosines, sines = rope(torch.zeros(1, 1, 1), torch.tensor([[position]]))
        found = table(torch.zeros(1), torch.tensor([[position]]))
        assert torch.equal(found[0], cosines) and torch.equal(found[1], sines)
    assert rope_of(fresh).cosines_PD.dtype == torch.float32


def test_a_rope_is_held_still_only_for_a_while() -> None:
    from octavo.models.fallback.model import observe

    skeleton, _ = observe(config_of("arcee", **DYNAMIC), torch.float32)
    ((_, _, rope),) = moving_ropes(skeleton)
    assert rope.rope_type == "dynamic"
    with pytest.raises(RuntimeError, match="for a reason"), held_still(skeleton):
        assert rope.rope_type == "default"
        raise RuntimeError("for a reason")
    assert rope.rope_type == "dynamic"


def test_a_rope_that_gives_something_else_is_refused() -> None:
    class Odd(nn.Module):
        rope_type = "longrope"

        def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            angles = position_ids[0, :, None].float()
            return angles.cos(), angles.sin()

    model = nn.ModuleDict({"rope": Odd()})
    with pytest.raises(ModelFileError, match="does not give a cosine and a sine for each position"):
        fix_ropes(model, Placement(dtype=torch.float32, device=CPU, max_positions=16))
