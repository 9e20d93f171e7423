"""What families with experts say of their checkpoints, and the configs they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.layers.moe import MixtureOfExperts
from octavo.weights.shapes import expected_shapes
from tests.models.test_load_weights import CONFIG, build, load, tensors_for

MODEL_TYPES = {
    "Mixtral": "mixtral",
    "Qwen2Moe": "qwen2_moe",
    "Qwen3Moe": "qwen3_moe",
    "GptOss": "gpt_oss",
    "Olmoe": "olmoe",
    "GraniteMoe": "granitemoe",
}
FAMILIES = list(MODEL_TYPES)


def build_family(name: str, **overrides: Any) -> Any:
    return build(**{"architectures": [f"{name}ForCausalLM"], "sliding_window": 8, **overrides})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_missing_tensor_and_every_wrong_shape_is_named(name: str) -> None:
    model = build_family(name, num_experts=3)
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
def test_known_shapes_are_the_models(name: str) -> None:
    """What files are checked against, and dummy weights made from."""
    own = {"mlp_only_layers": [1]} if name.startswith("Qwen") else {}
    config = {**CONFIG, "model_type": MODEL_TYPES[name], **own}
    slots = build_family(name, **own).weight_slots()
    assert expected_shapes(config) == {slot.name: tuple(slot.target.shape) for slot in slots}


@pytest.mark.parametrize("name", ["Qwen2Moe", "Qwen3Moe"])
def test_experts_stand_where_the_config_says(name: str) -> None:
    model = build_family(name, num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3])
    has_experts = [isinstance(block.mlp, MixtureOfExperts) for block in model.blocks]
    assert has_experts == [False, True, False, False, False, True]


def test_windows_by_layer() -> None:
    def windows(name: str, **overrides: Any) -> list[int | None]:
        return [spec.window for spec in build_family(name, num_hidden_layers=4, **overrides).kv_layers()]

    assert windows("GptOss") == [8, None, 8, None]
    assert windows("GptOss", layer_types=["full_attention"] * 4) == [None] * 4
    assert windows("Mixtral") == [8] * 4
    assert windows("Qwen3Moe", use_sliding_window=True) == [8] * 4
    assert windows("Qwen2Moe", use_sliding_window=True, max_window_layers=2) == [8, None, None, None]
    for name in ("Qwen2Moe", "Qwen3Moe"):
        assert windows(name, use_sliding_window=False) == [None] * 4


def test_qwen2_may_have_no_biases() -> None:
    names = [slot.name for slot in build_family("Qwen2Moe", qkv_bias=False).weight_slots()]
    assert not any(name.endswith(".bias") for name in names)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "Mixtral",
            {"num_experts": 4, "num_experts_per_tok": 5},
            "num_experts_per_tok is 5.*num_experts only 4",
        ),
        ("Mixtral", {"num_local_experts": 0}, "num_local_experts 0; it must be between 1 and"),
        ("Qwen3Moe", {"moe_intermediate_size": None}, "moe_intermediate_size None"),
        ("Qwen2Moe", {"shared_expert_intermediate_size": "wide"}, "shared_expert_intermediate_size 'wide'"),
        ("Qwen3Moe", {"decoder_sparse_step": 0}, "decoder_sparse_step 0"),
        ("Qwen3Moe", {"mlp_only_layers": 3}, "mlp_only_layers is '3'; it must be a list"),
        ("GptOss", {"swiglu_limit": -1.0}, "swiglu_limit -1.0"),
        ("GptOss", {"sliding_window": None}, "1 layers with a window, but no sliding_window"),
        ("Olmoe", {"clip_qkv": -8.0}, "clip_qkv -8.0"),
    ],
)
def test_configs_that_cannot_be(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build_family(name, **overrides)
