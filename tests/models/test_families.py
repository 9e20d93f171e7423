"""What families other than Llama say of their checkpoints: names, shapes, order of rows; configs refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.weights.shapes import expected_shapes
from tests.models.test_load_weights import CONFIG, build, load, tensors_for

FAMILIES = ["Phi3", "SmolLM3", "Olmo2", "Olmo3", "Granite", "Glm", "Glm4", "Ministral", "Ministral3"]


def build_family(name: str, **overrides: Any) -> Any:
    return build(architectures=[f"{name}ForCausalLM"], **overrides)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_missing_tensor_and_every_wrong_shape_is_named(name: str) -> None:
    model = build_family(name, attention_bias=True)
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


def test_phi_has_fused_matrices() -> None:
    shapes = {slot.name: list(slot.target.shape) for slot in build_family("Phi3").weight_slots()}
    assert shapes["model.layers.0.self_attn.qkv_proj.weight"] == [12 + 4 + 4, 12]
    assert shapes["model.layers.0.mlp.gate_up_proj.weight"] == [20, 12]


def test_glm_puts_neighbours_half_the_rotated_width_apart() -> None:
    """3 heads of 8, of which 4 are rotated."""
    model = build_family("Glm4", head_dim=8, attention_bias=True)
    tensors = tensors_for(model)
    name = "model.layers.1.self_attn.q_proj"
    tensors[f"{name}.weight"] = torch.arange(24.0)[:, None].expand(24, 12).clone()
    tensors[f"{name}.bias"] = torch.arange(24.0)
    load(model, tensors)
    placed = {slot.name: slot.target for slot in model.weight_slots()}
    expected = [8 * head + row for head in range(3) for row in (0, 2, 1, 3, 4, 5, 6, 7)]
    assert placed[f"{name}.bias"].tolist() == expected
    assert placed[f"{name}.weight"][:, 5].tolist() == expected
    v_name = "model.layers.1.self_attn.v_proj.weight"
    torch.testing.assert_close(placed[v_name], tensors[v_name], rtol=0, atol=0)


def test_windows_and_ropes_by_layer() -> None:
    olmo = build_family("Olmo3", num_hidden_layers=5, sliding_window=7)
    assert [spec.window for spec in olmo.kv_layers()] == [7, 7, 7, None, 7]
    smollm = build_family("SmolLM3", num_hidden_layers=5)
    rotates = [block.attention.layer.rotation_PD is not None for block in smollm.blocks]
    assert rotates == [True, True, True, False, True]


def test_olmo3_in_the_old_spelling_stretches_only_full_layers() -> None:
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
    old = build_family("Olmo3", num_hidden_layers=4, rope_theta=5e5, rope_scaling=scaling)
    by_kind = {
        "full_attention": {**scaling, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
    }
    new = build_family("Olmo3", num_hidden_layers=4, rope_parameters=by_kind)
    tables = [[block.attention.layer.rotation_PD for block in model.blocks] for model in (old, new)]
    for ours, theirs in zip(*tables, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(tables[0][0], tables[0][3])


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("Granite", {"residual_multiplier": "much"}, "residual_multiplier 'much'"),
        ("Granite", {"logits_scaling": 0}, "logits_scaling 0"),
        (
            "Granite",
            {"is_causal": False},
            "is_causal false: its tokens see those after them too, so it cannot write",
        ),
        ("Phi3", {"rope_scaling": {"type": "su"}}, "short_factor of rope type 'longrope' is None"),
        ("Phi3", {"rope_scaling": {"type": "linear2"}}, "rope type is 'linear2'"),
        ("Glm4", {"partial_rotary_factor": 0.1}, "0 of the 4 values of a head"),
        ("Ministral", {"layer_types": ["full_attention"], "sliding_window": 3}, "1 layer_types for 2 layers"),
        ("Ministral", {"layer_types": ["full_attention", "chunked"]}, "layer_types name 'chunked'"),
        ("SmolLM3", {"no_rope_layers": [1]}, "no_rope_layers has 1 entries for 2 layers"),
        ("Olmo3", {"rope_parameters": {"rope_type": "default"}}, "must have the entries full_attention"),
    ],
)
def test_configs_that_cannot_be(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build_family(name, **overrides)


@pytest.mark.parametrize("name", ["SmolLM3", "Granite", "Ministral", "Ministral3"])
def test_known_shapes_are_the_models(name: str) -> None:
    """What files are checked against, and dummy weights made from."""
    config = {**CONFIG, "model_type": name.lower(), "attention_bias": True}
    slots = build_family(name, attention_bias=True).weight_slots()
    assert expected_shapes(config) == {slot.name: tuple(slot.target.shape) for slot in slots}
