"""What real configs of models that see pictures say of the model for text within them."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.base.errors import ModelFileError
from octavo.weights.config_json import context_length, override
from octavo.weights.text_part import name_in_text, text_only

GEMMA_3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "eos_token_id": [1, 106],
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}
QWEN_2_5_VL = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "eos_token_id": 151645,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {"depth": 32},
    "vocab_size": 152064,
}


def read(config: dict[str, Any]) -> dict[str, Any]:
    found = text_only(config)
    assert found is not None
    return found


def test_gemma_leaves_out_what_its_class_knows() -> None:
    config = read(GEMMA_3_4B)
    assert (config["architectures"], config["model_type"]) == (["Gemma3ForCausalLM"], "gemma3_text")
    heads = (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"])
    assert (config["vocab_size"], *heads) == (262208, 8, 4, 256)
    assert config["eos_token_id"] == [1, 106] and context_length(config) == 131072


def test_qwen_has_its_entries_beside_the_pictures() -> None:
    config = read(QWEN_2_5_VL)
    assert (config["architectures"], config["model_type"]) == (["Qwen2ForCausalLM"], "qwen2")
    assert config["rope_scaling"]["rope_type"] == "default" and "type" not in config["rope_scaling"]
    assert "vision_config" not in config and context_length(config) == 128000


def test_a_users_entries_for_the_part_reach_it() -> None:
    wish = {"text_config": {"rope_scaling": None, "max_position_embeddings": 4096}}
    config = override(read(GEMMA_3_4B), wish)
    assert config["rope_scaling"] is None and context_length(config) == 4096
    assert "text_config" not in config


def test_models_for_text_are_left_alone_and_unknown_parts_refused() -> None:
    assert text_only({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}) is None
    odd = {**GEMMA_3_4B, "text_config": {"model_type": "mamba"}}
    with pytest.raises(ModelFileError, match=r"Gemma3ForConditionalGeneration is of the type 'mamba'"):
        text_only(odd)


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("language_model.model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("model.language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", None),
        ("model.visual.blocks.0.attn.qkv.weight", None),
        ("visual.merger.mlp.0.weight", None),
        ("multi_modal_projector.mm_soft_emb_norm.weight", None),
        ("model.vision_tower.embeddings.weight", None),
    ],
)
def test_both_spellings_of_names(stored: str, name: str | None) -> None:
    assert name_in_text(stored) == name


@pytest.mark.parametrize("stated", [4, "Gemma3ForConditionalGeneration", {"a": 1}, None, [None, 3, []]])
def test_architectures_that_are_no_list_of_names(stated: object) -> None:
    assert text_only({"architectures": stated, "model_type": "gemma3"}) is None
