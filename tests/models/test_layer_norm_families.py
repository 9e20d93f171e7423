"""Families with layer norms: their tensors' names and order of rows, positions, configs that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.table import find_model_class
from octavo.weights.config_json import add_modern_names, context_length, read_config
from octavo.weights.dummy_checkpoint import DummyCheckpoint
from tests.models.test_load_weights import CONFIG, build, load, tensors_for

CLASSES = {
    "bloom": "BloomForCausalLM",
    "cohere": "CohereForCausalLM",
    "falcon": "FalconForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gptj": "GPTJForCausalLM",
    "mpt": "MptForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "opt": "OPTForCausalLM",
    "phi": "PhiForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
}
WIDER = {"hidden_size": 24, "num_key_value_heads": 3, "rotary_dim": 4, "rotary_pct": 0.5}
"""Heads of 8, so that a part of one can be rotated."""


def build_family(model_type: str, **overrides: Any) -> Any:
    part = {} if model_type in ("cohere", "falcon") else {"partial_rotary_factor": 0.5}
    return build(architectures=[CLASSES[model_type]], **{**WIDER, **part, **overrides})


@pytest.mark.parametrize("model_type", CLASSES)
def test_every_missing_tensor_and_every_wrong_shape_is_named(model_type: str) -> None:
    model = build_family(model_type, attention_bias=True, tie_word_embeddings=False)
    tensors = tensors_for(model)
    for name, tensor in list(tensors.items()):
        del tensors[name]
        with pytest.raises(ModelFileError, match=f"lacks 1 tensors.*{name}"):
            load(model, tensors)
        tensors[name] = torch.zeros(len(tensor) + 1, *tensor.shape[1:])
        with pytest.raises(ModelFileError, match=rf"{name} has shape \[{len(tensor) + 1}[,\]]"):
            load(model, tensors)
        tensors[name] = tensor
    load(model, tensors)


def test_gpt2_matrices_are_turned_and_older_names_are_known() -> None:
    model = build_family("gpt2")
    tensors = tensors_for(model)
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (24, 72)
    load(model, {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()})
    placed = model.blocks[1].attention.qkv.forward(torch.eye(24))
    expected = tensors["transformer.h.1.attn.c_attn.weight"] + tensors["transformer.h.1.attn.c_attn.bias"]
    torch.testing.assert_close(placed, expected)


def test_neox_heads_hold_their_queries_keys_and_values_together() -> None:
    model = build_family("gpt_neox")
    tensors = tensors_for(model)
    name = "gpt_neox.layers.0.attention.query_key_value.bias"
    tensors[name] = torch.arange(72.0)
    load(model, tensors)
    placed = model.blocks[0].attention.qkv.bias_O.view(3, 3, 8)  # kind, head, value
    assert placed[:, 1].flatten().tolist() == list(range(24, 48))


def test_positions_of_opt_begin_at_row_two() -> None:
    model = build_family("opt")
    load(model, tensors_for(model))
    added = model.first_inputs(torch.zeros(2, 24), torch.tensor([0, 63], dtype=torch.int32))
    assert torch.equal(added, model.positions.weight_VE[[2, 65]])
    assert model.positions.weight_VE.shape == (66, 24)


@pytest.mark.parametrize(
    ("model_type", "overrides", "message"),
    [
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "residuals begin behind the norms"),
        (
            "cohere",
            {"use_qk_norm": True},
            "use_qk_norm: a layer norm of queries and keys is not supported.* model_impl transformers",
        ),
        ("gpt2", {"activation_function": "mish"}, "activation_function is 'mish'; supported are gelu, "),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"layer_norm_epsilon": "none"}, "layer_norm_epsilon 'none'"),
        ("gptj", {"rotary_dim": 5}, "rotary_dim is 5; it must be even, from 2 to head_dim 8"),
        ("mpt", {"no_bias": False}, "no_bias False; only True is supported, here and by transformers"),
        ("mpt", {"attn_config": {"alibi": False}}, "attn_config.alibi False; only True"),
        ("mpt", {"attn_config": {"alibi_bias_max": 0}}, "alibi_bias_max 0; it must be a number over 0"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config.qk_ln True; only False"),
        ("mpt", {"attn_config": 3}, "attn_config is a int; it must be an object"),
        ("opt", {"layer_norm_elementwise_affine": False}, "norms have no weights"),
        ("opt", {"word_embed_proj_dim": 0}, "word_embed_proj_dim is 0"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm: a layer norm"),
        ("stablelm", {"partial_rotary_factor": 0.1}, "0 of the 8 values of a head"),
    ],
)
def test_configs_that_cannot_be(model_type: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        build_family(model_type, **overrides)


def test_layers_with_linear_biases_ask_for_a_backend_that_has_them() -> None:
    config = {"attn_config": {"alibi_bias_max": 16, "softmax_scale": 0.3, "clip_qkv": 2.0}}
    model = build_family("mpt", **config)
    terms = model.blocks[1].attention.layer.terms
    assert terms.slopes_H.tolist() == [2**-8, 2**-16, 2**-4] and terms.scale == 0.3
    assert not any(spec.has_plain_softmax for spec in model.kv_layers())
    assert all(spec.has_plain_softmax for spec in build_family("falcon").kv_layers())


def test_blooms_own_files_have_shorter_names() -> None:
    model = build_family("bloom")
    tensors = tensors_for(model)
    load(model, {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()})
    assert torch.equal(model.embedding_norm.bias_E, tensors["transformer.word_embeddings_layernorm.bias"])


OLDER: dict[str, dict[str, Any]] = {
    "falcon": {"ffn_hidden_size": 10},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "n_inner": 10},
    "gptj": {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64, "n_inner": 10},
    "mpt": {"d_model": 24, "n_layers": 2, "n_heads": 3},
    "opt": {"ffn_dim": 10, "word_embed_proj_dim": 10, "do_layer_norm_before": False},
}
"""What configs of these say in their own way."""


@pytest.mark.parametrize("model_type", CLASSES)
def test_known_shapes_are_the_models(model_type: str, tmp_path: Path) -> None:
    """What dummy weights are made from."""
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False}
    config = {**CONFIG, **WIDER, **tokens, **OLDER.get(model_type, {}), "model_type": model_type}
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": [CLASSES[model_type]]}))
    dummy = DummyCheckpoint(tmp_path)
    slots = build_family(model_type, **tokens, **OLDER.get(model_type, {})).weight_slots()
    assert {name: dummy.shape(name) for name in dummy.tensor_names()} == {
        slot.name: tuple(slot.target.shape) for slot in slots
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "bloom": {
        "architectures": ["BloomForCausalLM"],
        "apply_residual_connection_post_layernorm": False,
        "n_embed": 24,
        "n_inner": None,
        "n_layer": 2,
        "num_attention_heads": 3,
        "offset_alibi": 100,
        "vocab_size": 11,
    },
    "mpt": {
        "architectures": ["MPTForCausalLM"],
        "attn_config": {"alibi": True, "alibi_bias_max": 16, "clip_qkv": 6, "qk_ln": False},
        "d_model": 24,
        "expansion_ratio": 4,
        "learned_pos_emb": True,
        "logit_scale": None,
        "max_seq_len": 2048,
        "n_heads": 3,
        "n_layers": 2,
        "no_bias": True,
        "vocab_size": 11,
    },
}


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_configs_as_their_authors_wrote_them(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **PUBLISHED[model_type]}))
    config = read_config(tmp_path)
    assert context_length(config) == 2048
    placement = Placement(dtype=torch.float32, device=torch.device("cpu"), max_positions=64)
    model = find_model_class(config)(config, placement)
    assert type(model).__name__ == CLASSES[model_type]
    assert (model.hidden_size, model.num_heads, len(model.kv_layers())) == (24, 3, 2)


def test_a_head_that_is_the_embedding_keeps_its_bias() -> None:
    model = build_family("phi", tie_word_embeddings=True)
    tensors = tensors_for(model)
    assert "lm_head.weight" not in tensors and "model.embed_tokens.bias" not in tensors
    load(model, tensors)
    logits_SV = model.logits(torch.zeros(1, 24))
    torch.testing.assert_close(logits_SV[0], tensors["lm_head.bias"])


def test_counts_under_older_names_are_found() -> None:
    config: dict[str, Any] = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 60, "n_inner": None}
    add_modern_names(config)
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == (24, 2, 3)
    assert "intermediate_size" not in config
    assert context_length(config) == 60
