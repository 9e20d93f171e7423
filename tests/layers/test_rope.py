"""Rotary angles against transformers', kind by kind, in both spellings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from octavo.layers.placement import Placement
from octavo.layers.rope import RopeFacts, rotation_table

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": LLAMA3,
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": YARN,
    "yarn with attention_factor": {**YARN, "attention_factor": 1.3},
    "yarn with mscale": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.1},
    "yarn untruncated": {**YARN, "truncate": False, "beta_fast": 16.0, "beta_slow": 2.0},
    "yarn with little room": {**YARN, "original_max_position_embeddings": 4},
}


def config_of(values: dict[str, Any], head_dim: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "head_dim": head_dim,
        "hidden_size": 4 * head_dim,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    return {**config, "rope_parameters": {**values, "rope_theta": 20000.0}}


def table_of(config: dict[str, Any], head_dim: int, max_positions: int = 256) -> torch.Tensor:
    placement = Placement(dtype=torch.bfloat16, device=torch.device("cpu"), max_positions=max_positions)
    return rotation_table(RopeFacts.from_config(config, head_dim), placement)


@pytest.mark.parametrize("head_dim", [24, 64])
@pytest.mark.parametrize("kind", list(KINDS))
def test_equals_transformers(kind: str, head_dim: int) -> None:
    config = config_of(KINDS[kind], head_dim)
    positions = torch.arange(256)
    expected = LlamaRotaryEmbedding(LlamaConfig(**config))(torch.zeros(1), positions[None])
    half = head_dim // 2
    found = table_of(config, head_dim)
    assert found.dtype == torch.float32  # whatever the model computes in
    for ours, theirs in zip(found.split(half, -1), expected, strict=True):
        torch.testing.assert_close(ours, theirs[0, :, :half], atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_old_spelling(kind: str) -> None:
    new = config_of(KINDS[kind], 24)
    old = {**new, "rope_theta": 20000.0}
    values = dict(old.pop("rope_parameters"))
    del values["rope_theta"]
    values["type"] = values.pop("rope_type")
    old["rope_scaling"] = values
    assert torch.equal(table_of(new, 24), table_of(old, 24))


def test_dynamic_turns_each_token_as_if_the_text_ended_there() -> None:
    config = config_of(KINDS["dynamic"], 24)
    table_PD = table_of(config, 24, 512)
    for position in (256, 300, 511):
        frequencies, _ = ROPE_INIT_FUNCTIONS["dynamic"](LlamaConfig(**config), None, seq_len=position + 1)
        angles = frequencies * position
        expected = torch.cat((angles.cos(), angles.sin()))
        torch.testing.assert_close(table_PD[position], expected, atol=5e-5, rtol=0)
