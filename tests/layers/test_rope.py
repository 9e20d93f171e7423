"""Rotary angles against transformers', kind by kind, in both spellings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from octavo.base.errors import ModelFileError
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


LONGROPE = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 100,
    "short_factor": [1.0 + 0.1 * i for i in range(12)],
    "long_factor": [2.0 + 0.5 * i for i in range(12)],
}


@pytest.mark.parametrize("extra", [{}, {"factor": 3.0}, {"attention_factor": 1.2}], ids=str)
@pytest.mark.parametrize("longest", [100, 101])
def test_longrope_goes_by_the_longest_text(longest: int, extra: dict[str, Any]) -> None:
    config = config_of({**LONGROPE, **extra}, 24)
    positions = torch.arange(longest)
    expected = LlamaRotaryEmbedding(LlamaConfig(**config))(torch.zeros(1), positions[None])
    found = table_of(config, 24, longest)
    for ours, theirs in zip(found.split(12, -1), expected, strict=True):
        torch.testing.assert_close(ours, theirs[0, :, :12], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"long_factor": [1.0] * 11}, "long_factor of rope type 'longrope' has 11 numbers; .* list of 12"),
        ({"long_factor": None}, "long_factor of rope type 'longrope' is None"),
        ({"long_factor": [0.0] * 12}, r"long_factor of rope type 'longrope' holds 0\.0"),
        ({"original_max_position_embeddings": 1}, "original_max_position_embeddings is 1"),
    ],
)
def test_longrope_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        table_of(config_of({**LONGROPE, **values}, 24), 24)


@pytest.mark.parametrize(("part", "width"), [(0.5, 12), (0.75, 18), (1.0, 24)])
def test_a_part_of_each_head(part: float, width: int) -> None:
    config = config_of({"rope_type": "default", "partial_rotary_factor": part}, 24)
    whole = config_of({"rope_type": "default"}, width)
    placement = Placement(dtype=torch.float32, device=torch.device("cpu"), max_positions=50)
    table = rotation_table(RopeFacts.from_config(config, 24, may_be_partial=True), placement)
    assert torch.equal(table, table_of(whole, width, 50))


@pytest.mark.parametrize("part", [1.5, 0.05, 0.3, -1.0])
def test_parts_that_cannot_be(part: float) -> None:
    config = config_of({"rope_type": "default", "partial_rotary_factor": part}, 24)
    with pytest.raises(ModelFileError, match=f"partial_rotary_factor is {part}"):
        RopeFacts.from_config(config, 24, may_be_partial=True)


def test_ropes_by_type_of_layer_are_not_taken_for_one_rope() -> None:
    """Families with several ropes hand over one at a time; elsewhere it would silently mean base 10000."""
    by_type = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(ModelFileError, match="full_attention, sliding_attention"):
        RopeFacts.from_config({"rope_parameters": by_type}, 16)
