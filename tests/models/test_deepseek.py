"""Checkpoints of DeepSeek and its like: names, shapes, order of rows; configs refused; what a token keeps."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from octavo.base.errors import ModelFileError
from octavo.layers.latent_attention import LatentAttention
from octavo.layers.moe import MixtureOfExperts
from octavo.messages.kv import KVKind
from octavo.models.load import load_weights
from octavo.ops.routing import Groups, Scoring
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.footprint import kv_bytes_per_token
from octavo.weights.shapes import expected_shapes
from tests.models.test_load_weights import CONFIG, build, load, tensors_for

WIDTHS = {
    "kv_lora_rank": 10,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 5,
    "num_experts": None,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 7,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 3,
    "topk_group": 2,
    "num_hidden_layers": 2,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("V2", {"topk_method": "greedy"}),
    ("V2", {"topk_method": "group_limited_greedy", "q_lora_rank": 9}),
    ("V3", {"q_lora_rank": 9}),
    ("V3", {"n_shared_experts": None}),
    ("Glm4MoeLite", {"q_lora_rank": 9, "mlp_layer_types": ["sparse", "dense"]}),
    ("Glm4Moe", {"attention_bias": True}),
    ("Glm4Moe", {"use_qk_norm": True}),
]
MODEL_TYPES = {
    "V2": "deepseek_v2",
    "V3": "deepseek_v3",
    "Glm4Moe": "glm4_moe",
    "Glm4MoeLite": "glm4_moe_lite",
}


def build_family(name: str, **overrides: Any) -> Any:
    architecture = f"{name}ForCausalLM" if name.startswith("Glm") else f"Deepseek{name}ForCausalLM"
    return build(**{"architectures": [architecture], **WIDTHS, **overrides})


@pytest.mark.parametrize(("name", "own"), CASES)
def test_every_missing_tensor_and_every_wrong_shape_is_named(name: str, own: dict[str, Any]) -> None:
    model = build_family(name, **own)
    tensors = tensors_for(model)
    for tensor_name, tensor in list(tensors.items()):
        del tensors[tensor_name]
        with pytest.raises(ModelFileError, match=f"lacks 1 tensors.*{tensor_name}"):
            load(model, tensors)
        tensors[tensor_name] = torch.zeros(len(tensor) + 1, *tensor.shape[1:])
        with pytest.raises(ModelFileError, match=rf"{tensor_name} has shape \[{len(tensor) + 1}[,\]]"):
            load(model, tensors)
        tensors[tensor_name] = tensor
    load(model, tensors)


@pytest.mark.parametrize(("name", "own"), CASES)
def test_known_shapes_are_the_models(name: str, own: dict[str, Any]) -> None:
    config = {**CONFIG, **WIDTHS, **own, "model_type": MODEL_TYPES[name]}
    slots = build_family(name, **own).weight_slots()
    assert expected_shapes(config) == {slot.name: tuple(slot.target.shape) for slot in slots}
    if name == "V3":
        assert expected_shapes({**config, "model_type": "kimi_k2"}) == expected_shapes(config)


def test_a_token_keeps_one_row() -> None:
    model = build_family("V3")
    specs = model.kv_layers()
    assert {(spec.kind, spec.num_kv_heads, spec.head_dim, spec.value_dim) for spec in specs} == {
        (KVKind.LATENT, 1, 14, 10)
    }
    config = {**CONFIG, **WIDTHS, "model_type": "deepseek_v3"}
    per_token = sum(spec.bytes_per_token for spec in specs)
    assert kv_bytes_per_token(config, "float32") == per_token == 2 * 14 * 4


def test_layers_for_drafting_are_left_out_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """DeepSeek V3's files hold one more layer than it has, which guesses a second token."""
    model = build_family("V3")
    tensors = {**tensors_for(model), "model.layers.2.eh_proj.weight": torch.ones(3, 3)}
    with caplog.at_level(logging.INFO):
        load(model, tensors)
    assert "model.layers.2.eh_proj.weight" in caplog.text


def test_files_in_fp8_fill_the_model(tmp_path: Path) -> None:
    """As DeepSeek V3 is published: matrices in FP8, each block of 4 by 4 with a scale; all else as it is."""
    config = {**CONFIG, **WIDTHS, "q_lora_rank": 9, "model_type": "deepseek_v3", "dtype": "bfloat16"}
    config |= {"architectures": ["DeepseekV3ForCausalLM"], "tie_word_embeddings": False}
    model, plain = build(**config), build(**config)
    stored, truth = {}, {}
    for name, tensor in tensors_for(model).items():
        if "_proj" not in name or tensor.ndim != 2:
            stored[name] = truth[name] = tensor
            continue
        scales = torch.rand(-(-tensor.shape[0] // 4), -(-tensor.shape[1] // 4)) + 0.1
        stored[name], stored[f"{name}_scale_inv"] = tensor.to(torch.float8_e4m3fn), scales
        factors = scales.repeat_interleave(4, 0).repeat_interleave(4, 1)
        truth[name] = stored[name].float() * factors[: tensor.shape[0], : tensor.shape[1]]
    quantization = {"quant_method": "fp8", "weight_block_size": [4, 4]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    save_file(stored, tmp_path / "model.safetensors")
    load_weights(model, open_checkpoint(tmp_path))
    load(plain, truth)
    for name, parameter in plain.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name


def test_rotated_rows_go_from_neighbours_to_halves() -> None:
    model = build_family("V2", q_lora_rank=9, topk_method="greedy", num_attention_heads=2)
    tensors = tensors_for(model)
    name = "model.layers.0.self_attn"
    for tensor in ("q_b_proj", "kv_a_proj_with_mqa"):
        rows = tensors[f"{name}.{tensor}.weight"]
        rows.copy_(torch.arange(len(rows))[:, None].expand_as(rows))
    load(model, tensors)
    attention = model.blocks[0].attention
    assert isinstance(attention, LatentAttention) and attention.q_up is not None
    stored = attention.q_up.product.as_stored(attention.q_up.weight)[:, 0].tolist()
    assert stored == [0, 1, 2, 3, 4, 5, 6, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16, 18, 17, 19]
    stored = attention.down.product.as_stored(attention.down.weight)[9:, 0].tolist()
    assert stored == [*range(10), 10, 12, 11, 13]


def test_experts_and_how_they_are_chosen() -> None:
    model = build_family("V3", num_hidden_layers=5, moe_layer_freq=2)
    has_experts = [isinstance(block.mlp, MixtureOfExperts) for block in model.blocks]
    assert has_experts == [False, False, True, False, True]
    routing = model.blocks[2].mlp.router.routing
    assert routing.scoring is Scoring.SIGMOID and routing.is_normed and routing.factor == 2.5
    assert routing.groups == Groups(count=3, num_chosen=2, num_best=2)
    model = build_family("V2", topk_method="group_limited_greedy", routed_scaling_factor=16.0)
    routing = model.blocks[1].mlp.router.routing
    assert routing.scoring is Scoring.SOFTMAX and not routing.is_normed and routing.factor == 16.0
    assert routing.groups == Groups(count=3, num_chosen=2, num_best=1)
    assert build_family("V2").blocks[1].mlp.router.routing.groups is None


def test_a_stretched_rope_sharpens_the_scores() -> None:
    rope = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 64, "mscale_all_dim": 0.707}
    plain, stretched = (
        build_family("V3", **own).blocks[0].attention.layer.terms.scale
        for own in ({}, {"rope_scaling": rope})
    )
    assert plain == pytest.approx(10**-0.5)
    assert stretched == pytest.approx(plain * (0.1 * 0.707 * math.log(40) + 1) ** 2)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("V3", {"attention_bias": True}, "attention_bias is true"),
        ("V3", {"kv_lora_rank": 0}, "kv_lora_rank 0; it must be between 1 and"),
        ("V3", {"q_lora_rank": "x"}, "q_lora_rank 'x'"),
        ("V3", {"qk_rope_head_dim": 5}, "qk_rope_head_dim is 5; .*even"),
        ("V3", {"topk_method": "greedy"}, "topk_method 'greedy'; supported here: noaux_tc"),
        ("V2", {"topk_method": "noaux_tc"}, "topk_method 'noaux_tc'; supported here: greedy, group"),
        ("V2", {"scoring_func": "sigmoid"}, "scoring_func 'sigmoid'; supported here: softmax"),
        ("V2", {"norm_topk_prob": True}, "norm_topk_prob is true"),
        ("V3", {"n_group": 4}, "6 experts cannot stand in n_group 4"),
        ("V3", {"n_group": 6}, "6 experts cannot stand in n_group 6 equal groups of at least 2"),
        ("V3", {"topk_group": 4}, "from topk_group 4 of 3 groups"),
        (
            "V3",
            {"topk_group": 1, "num_experts_per_tok": 3},
            "num_experts_per_tok 3 .*topk_group 1 of 3.*2 experts",
        ),
        (
            "Glm4MoeLite",
            {"mlp_layer_types": ["dense"]},
            "mlp_layer_types must say .* for layer 1",
        ),
        ("V3", {"first_k_dense_replace": -1}, "first_k_dense_replace is '-1'"),
        ("V3", {"num_experts_per_tok": 7}, "num_experts_per_tok is 7.*n_routed_experts only 6"),
    ],
)
def test_configs_that_cannot_be(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build_family(name, **overrides)
