"""Placing weights, and configs and checkpoints that cannot be."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.load import load_weights
from octavo.models.table import MODELS, find_model_class

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 6,
    "shared_expert_intermediate_size": 8,
}
CPU = torch.device("cpu")


class DictCheckpoint:
    """Tensors in memory behind the interface of a checkpoint."""

    format = "safetensors"
    stored_dtype = "float32"

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def tensor_names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.tensors[name].to(dtype or torch.float32)


def build(**overrides: Any) -> Any:
    config = {**CONFIG, **overrides}
    return find_model_class(config)(config, Placement(dtype=torch.float32, device=CPU, max_positions=64))


def tensors_for(model: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {slot.name: torch.randn(slot.target.shape, generator=generator) for slot in model.weight_slots()}


def load(model: Any, tensors: dict[str, torch.Tensor]) -> Any:
    return load_weights(model, DictCheckpoint(tensors))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_tied", [False, True])
def test_every_tensor_lands_where_it_belongs(is_tied: bool) -> None:
    model = build(tie_word_embeddings=is_tied, attention_bias=True, mlp_bias=True)
    tensors = tensors_for(model)
    placed = load(model, tensors)
    for slot in model.weight_slots():
        torch.testing.assert_close(slot.target, tensors[slot.name], rtol=0, atol=0)
    assert placed.num_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert placed.num_bytes == sum(p.nbytes for p in model.parameters())
    assert ("lm_head.weight" in tensors) is not is_tied


def test_a_missing_tensor_is_named() -> None:
    model = build()
    tensors = tensors_for(model)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ModelFileError, match=r"lacks 1 tensors.*model\.layers\.1\.mlp\.up_proj\.weight"):
        load(model, tensors)


def test_a_wrong_shape_is_shown_with_both() -> None:
    model = build()
    tensors = tensors_for(model)
    tensors["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(8, 12)
    with pytest.raises(ModelFileError, match=r"k_proj\.weight has shape \[8, 12\].*asks for \[4, 12\]"):
        load(model, tensors)


def test_unexpected_tensors_are_listed_once(caplog: pytest.LogCaptureFixture) -> None:
    model = build(tie_word_embeddings=True)
    tensors = tensors_for(model)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    with caplog.at_level(logging.WARNING):
        load(model, tensors)
    assert not caplog.records
    tensors["model.vision.weight"] = torch.zeros(2)
    with caplog.at_level(logging.WARNING):
        load(model, tensors)
    assert [record.getMessage() for record in caplog.records] == [
        "1 tensors of the checkpoint are not used by this model: model.vision.weight."
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_broken_numbers_are_named(value: float, caplog: pytest.LogCaptureFixture) -> None:
    model = build()
    tensors = tensors_for(model)
    tensors["model.layers.1.self_attn.o_proj.weight"][3, 4] = value
    with caplog.at_level(logging.WARNING):
        load(model, tensors)
    [record] = caplog.records
    assert "model.layers.1.self_attn.o_proj.weight" in record.getMessage()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_key_value_heads": 2}, "3 is not a multiple of num_key_value_heads 2"),
        ({"hidden_size": 13}, "hidden_size 13 is not a multiple of num_attention_heads 3"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers 1000000"),
        ({"num_hidden_layers": None}, "num_hidden_layers None"),
        ({"vocab_size": "11"}, "vocab_size '11'"),
        ({"head_dim": 5}, "head_dim is 5"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_theta": float("nan")}, "rope_theta is nan"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor of rope type 'linear' is 0"),
        ({"rope_parameters": {"rope_type": "mrope2"}}, "rope type is 'mrope2'; supported are default"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "short_factor of rope type 'longrope' is None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_configs_that_cannot_be(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build(**overrides)


def test_a_llama_ignores_sliding_window_and_a_mistral_does_not() -> None:
    assert build(sliding_window=7).kv_layers()[0].window is None
    assert build(sliding_window=7, architectures=["MistralForCausalLM"]).kv_layers()[0].window == 7


def test_all_of_the_table_can_be_built() -> None:
    from tests.models.test_hybrid import FAMILIES as HYBRID

    for name in MODELS:
        overrides = {"sliding_window": 8, "head_dim": 8, "rotary_dim": 4}
        overrides |= HYBRID.get(name.removesuffix("ForCausalLM"), {})
        assert build(architectures=[name], **overrides).vocab_size == 11
