"""Models with recurrent layers: names and order of tensors, what a request's state takes, configs refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.models.contract import recurrent_layers
from octavo.weights.config_json import context_length
from octavo.weights.dummy_checkpoint import DummyCheckpoint
from octavo.weights.recurrent import recurrent_facts
from octavo.worker.row_states import row_state_bytes
from tests.models.test_load_weights import CONFIG, build, load, tensors_for

MAMBA2 = {"mamba_n_heads": 4, "mamba_d_state": 6, "mamba_n_groups": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bamba": {**MAMBA2, "attn_layer_indices": [1], "head_dim": 8},
    "FalconH1": {**MAMBA2, "mamba_d_ssm": 20, "mamba_rms_norm": True},
    "GraniteMoeHybrid": {
        **MAMBA2,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
    },
    "Mamba2": {
        "num_heads": 3,
        "head_dim": 8,
        "state_size": 5,
        "n_groups": 1,
        "max_position_embeddings": None,
    },
    "Qwen3Next": {
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 8,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_value_head_dim": 5,
        "linear_key_head_dim": 6,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 4,
        "shared_expert_intermediate_size": 6,
    },
}
MODEL_TYPES = {
    "Bamba": "bamba",
    "FalconH1": "falcon_h1",
    "GraniteMoeHybrid": "granitemoehybrid",
    "Mamba2": "mamba2",
    "Qwen3Next": "qwen3_next",
}


def build_family(name: str, **overrides: Any) -> Any:
    return build(architectures=[f"{name}ForCausalLM"], **{**FAMILIES[name], **overrides})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_missing_tensor_and_every_wrong_shape_is_named(name: str) -> None:
    model = build_family(name)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_planning_knows_what_the_model_keeps(name: str) -> None:
    model = build_family(name)
    facts = recurrent_facts({**CONFIG, **FAMILIES[name], "model_type": MODEL_TYPES[name]})
    assert facts.num_attention_layers == len(model.kv_layers())
    assert facts.state_bytes == row_state_bytes(recurrent_layers(model), 1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("has_biases", [False, True])
def test_known_shapes_are_the_models(name: str, has_biases: bool, tmp_path: Path) -> None:
    """What dummy weights are made from."""
    names = ("attention_bias", "mamba_proj_bias", "projectors_bias", "mamba_conv_bias", "tie_word_embeddings")
    overrides: dict[str, Any] = dict.fromkeys(names, has_biases)
    config = {**CONFIG, **FAMILIES[name], **overrides, "model_type": MODEL_TYPES[name]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": [f"{name}ForCausalLM"]}))
    dummy = DummyCheckpoint(tmp_path)
    slots = build_family(name, **overrides).weight_slots()
    assert {name: dummy.shape(name) for name in dummy.tensor_names() if name != "lm_head.weight"} == {
        slot.name: tuple(slot.target.shape) for slot in slots if slot.name != "lm_head.weight"
    }


def test_a_model_without_attention_has_no_cache_and_an_older_name() -> None:
    model = build_family("Mamba2")
    assert model.kv_layers() == []
    tensors = tensors_for(model)
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    load(model, tensors)
    assert context_length({**CONFIG, **FAMILIES["Mamba2"], "model_type": "mamba2"}) == 2**18


def test_a_model_that_only_attends_keeps_nothing() -> None:
    assert recurrent_layers(build()) == []
    assert recurrent_facts({**CONFIG, "model_type": "llama"}) == (2, 0)


def test_a_narrow_model_keeps_its_state_wide() -> None:
    from octavo.layers.placement import Placement
    from octavo.models.table import find_model_class

    config = {**CONFIG, **FAMILIES["FalconH1"], "architectures": ["FalconH1ForCausalLM"]}
    placement = Placement(dtype=torch.bfloat16, device=torch.device("cpu"), max_positions=64)
    model = find_model_class(config)(config, placement)
    assert [[part.dtype_bytes for part in spec.parts] for spec in recurrent_layers(model)] == [[2, 4]] * 2
    wide = {
        slot.name.rsplit(".", 1)[1] for slot in model.weight_slots() if slot.target.dtype == torch.float32
    }
    assert wide == {"A_log", "D", "dt_bias"}


def test_gates_and_queries_of_qwen_are_told_apart() -> None:
    """q_proj holds a head's queries before its gate; here all gates come first."""
    model = build_family("Qwen3Next", attention_bias=True)
    tensors = tensors_for(model)
    tensors["model.layers.1.self_attn.q_proj.bias"] = torch.arange(48.0)  # 3 heads of 8, twice
    load(model, tensors)
    placed = model.blocks[1].mixer.qkv.bias_O[:48]
    gates = [16 * head + 8 + value for head in range(3) for value in range(8)]
    assert placed.tolist() == [*gates, *(gate - 8 for gate in gates)]


def test_groups_of_qwen_are_told_apart() -> None:
    model = build_family("Qwen3Next")
    tensors = tensors_for(model)
    name = "model.layers.0.linear_attn.in_proj_ba.weight"
    tensors[name] = torch.arange(8.0)[:, None].expand(8, 12).clone()
    load(model, tensors)
    slots = {slot.name: slot.target for slot in model.weight_slots()}
    assert slots[name][:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7], "all b, then all a"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("Bamba", {"attn_layer_indices": [2]}, r"attn_layer_indices is \[2\]; .* from 0 to 1"),
        ("Bamba", {"mamba_n_heads": 5}, "mamba_n_heads 5 times mamba_d_head 4 is not the inner width 24"),
        ("Bamba", {"mamba_n_groups": 3}, "mamba_n_heads 4 is not a multiple of mamba_n_groups 3"),
        ("Bamba", {"mamba_d_conv": 1}, "mamba_d_conv is 1; it must be at least 2"),
        ("Bamba", {"time_step_limit": [3, 1]}, "time_step_limit"),
        ("Bamba", {"time_step_limit": "wide"}, "time_step_limit is wide"),
        ("FalconH1", {"ssm_multipliers": [1.0]}, "has 1 ssm_multipliers; it must be 5 numbers"),
        ("FalconH1", {"mlp_multipliers": [1.0, 0]}, "mlp_multipliers 0; it must be a number over 0"),
        ("GraniteMoeHybrid", {"layer_types": ["mamba"]}, "lists 1 layer_types for 2 layers"),
        ("GraniteMoeHybrid", {"layer_types": ["mamba", "moe"]}, "layer_types name 'moe'"),
        ("GraniteMoeHybrid", {"mamba_d_state": None}, "mamba_d_state None"),
        ("Mamba2", {"num_heads": 4}, "num_heads 4 times head_dim 8 is not the inner width 24"),
        ("Qwen3Next", {"linear_num_key_heads": 3}, "heads 4 is not a multiple of linear_num_key_heads 3"),
        ("Qwen3Next", {"layer_types": ["full_attention", "mamba"]}, "layer_types name 'mamba'"),
    ],
)
def test_configs_that_cannot_be(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build_family(name, **overrides)
