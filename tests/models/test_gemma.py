"""Gemma's configs: what cannot be is refused with names and numbers, and each layer gets its own terms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.gemma3 import rope_values
from octavo.models.load import load_weights
from octavo.models.table import find_model_class
from tests.models.test_load_weights import DictCheckpoint, tensors_for

CONFIG: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 7,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "sliding_window": 8,
    "hidden_activation": "gelu_pytorch_tanh",
}


def build(name: str, dtype: torch.dtype = torch.float32, **overrides: Any) -> Any:
    config = {**CONFIG, "architectures": [name], **overrides}
    return find_model_class(config)(
        config, Placement(dtype=dtype, device=torch.device("cpu"), max_positions=64)
    )


def test_windows_by_default() -> None:
    full = [spec.window is None for spec in build("Gemma3ForCausalLM").kv_layers()]
    assert full == [False] * 5 + [True, False]
    full = [spec.window is None for spec in build("Gemma2ForCausalLM").kv_layers()]
    assert full == [False, True, False, True, False, True, False]
    assert {spec.window for spec in build("GemmaForCausalLM").kv_layers()} == {None}


def test_capped_scores_are_told_to_the_backend() -> None:
    capped = build("Gemma2ForCausalLM", attn_logit_softcapping=50.0).kv_layers()
    assert not any(spec.has_plain_softmax for spec in capped)
    # Gemma 3 has no such cap, whatever its config says.
    plain = build("Gemma3ForCausalLM", attn_logit_softcapping=50.0).kv_layers()
    assert all(spec.has_plain_softmax for spec in plain)


def test_both_spellings_of_the_ropes() -> None:
    old = {
        "rope_theta": 1e5,
        "rope_local_base_freq": 500.0,
        "rope_scaling": {"type": "linear", "factor": 8.0},
    }
    new = {
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e5, "rope_type": "linear", "factor": 8.0},
            "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
        }
    }
    olds, news = build("Gemma3ForCausalLM", **old), build("Gemma3ForCausalLM", **new)
    for one, other in zip(olds.blocks, news.blocks, strict=True):
        assert torch.equal(one.attention.layer.rotation_PD, other.attention.layer.rotation_PD)
    assert rope_values({}, "full_attention") == {"rope_theta": 1e6}
    assert rope_values({}, "sliding_attention") == {"rope_theta": 1e4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_scale_by_one_plus_the_weight_in_float32(dtype: torch.dtype) -> None:
    model = build("Gemma3ForCausalLM", dtype)
    tensors = tensors_for(model)
    load_weights(model, DictCheckpoint(tensors))  # type: ignore[arg-type]
    name = "model.layers.2.self_attn.q_norm.weight"
    weight_D = model.blocks[2].attention.layer.q_norm_D
    assert weight_D.dtype == torch.float32 and torch.equal(weight_D, 1 + tensors[name])
    assert model.kv_layers()[0].dtype_bytes == dtype.itemsize
    assert "lm_head.weight" not in tensors


def test_a_missing_norm_is_named() -> None:
    model = build("Gemma2ForCausalLM")
    tensors = tensors_for(model)
    del tensors["model.layers.6.post_feedforward_layernorm.weight"]
    with pytest.raises(ModelFileError, match=r"model\.layers\.6\.post_feedforward_layernorm\.weight"):
        load_weights(model, DictCheckpoint(tensors))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"layer_types": ["full_attention"] * 6}, "6 layer_types for 7 layers"),
        ({"layer_types": ["full_attention"] * 6 + ["linear_attention"]}, "'linear_attention'"),
        ({"sliding_window": None}, "6 layers with a window, but no sliding_window"),
        (
            {"use_bidirectional_attention": True},
            "use_bidirectional_attention true: its tokens see those after",
        ),
        ({"hidden_activation": "silu"}, "hidden_act is 'silu'; only 'gelu_pytorch_tanh'"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar 0"),
        ({"final_logit_softcapping": float("nan")}, "final_logit_softcapping nan"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "neither full_attention nor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "odd"}}}, "rope type is 'odd'"),
    ],
)
def test_configs_that_cannot_be(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build("Gemma3ForCausalLM", **overrides)
