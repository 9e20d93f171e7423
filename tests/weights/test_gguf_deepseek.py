"""DeepSeek in GGUF files, old and new: tensors come back as Hugging Face has them, and the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.table import find_model_class
from octavo.ops.routing import Groups, Scoring
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.shapes import expected_shapes
from tests.weights.crafted import Info, write_gguf

VOCAB, HEADS, NOPE, ROTATED, LATENT, VALUE, EXPERTS = 40, 3, 12, 8, 20, 10, 6
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 36,
    "moe_intermediate_size": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": LATENT,
    "qk_rope_head_dim": ROTATED,
    "qk_nope_head_dim": NOPE,
    "v_head_dim": VALUE,
}
KEYS: dict[str, Any] = {
    "block_count": 3,
    "context_length": 4000,
    "embedding_length": 24,
    "feed_forward_length": 36,
    "expert_feed_forward_length": 14,
    "expert_shared_count": 2,
    "expert_count": EXPERTS,
    "expert_used_count": 2,
    "expert_weights_scale": 1.5,
    "leading_dense_block_count": 1,
    "attention.head_count": HEADS,
    "attention.kv_lora_rank": LATENT,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.dimension_count": ROTATED,
}
OLD = {
    "attention.head_count_kv": HEADS,
    "attention.key_length": NOPE + ROTATED,
    "attention.value_length": VALUE,
}
NEW = {
    "attention.head_count_kv": 1,
    "attention.key_length": LATENT + ROTATED,
    "attention.value_length": LATENT,
    "attention.key_length_mla": NOPE + ROTATED,
    "attention.value_length_mla": VALUE,
}
V3 = {
    "attention.q_lora_rank": 16,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_group_count": 3,
    "expert_group_used_count": 2,
}
FILES: dict[str, dict[str, Any]] = {
    "V2-Lite, old": OLD,
    "V2-Lite, new": NEW,
    "V3, old": {**OLD, **V3},
    "V3, new": {**NEW, **V3},
}
Weights = dict[str, torch.Tensor]


def hugging_face_weights(kind: str) -> Weights:
    generator = torch.Generator().manual_seed(0)
    own = {"model_type": "deepseek_v3", "q_lora_rank": 16} if "V3" in kind else {"model_type": "deepseek_v2"}
    shapes = expected_shapes({**COMMON, **own})
    assert shapes is not None
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def info(name: str, tensor: torch.Tensor) -> Info:
    return Info(name, tuple(tensor.shape), 0, tensor.contiguous().numpy().tobytes())


def gguf_tensors(kind: str, weights: Weights) -> list[Info]:
    """As converters make them."""
    names, tensors = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, 3), []
    for name, tensor in weights.items():
        if ".experts." in name:
            continue
        if "kv_b_proj" in name and "new" in kind:
            keys, values = tensor.view(HEADS, NOPE + VALUE, LATENT).split((NOPE, VALUE), 1)
            layer = name.split(".")[2]
            tensors.append(info(f"blk.{layer}.attn_k_b.weight", keys.transpose(1, 2)))
            tensors.append(info(f"blk.{layer}.attn_v_b.weight", values))
            continue
        # Converters call the bias of the choice a bias of its own.
        called = name.replace("e_score_correction_bias", "e_score_correction.bias")
        stem, suffix = called.rsplit(".", 1)
        tensors.append(info(f"{names.get_name(stem)}.{suffix}", tensor))
    for layer in (1, 2):
        for matrix in ("gate", "up", "down"):
            experts = f"model.layers.{layer}.mlp.experts"
            stack = [weights[f"{experts}.{expert}.{matrix}_proj.weight"] for expert in range(EXPERTS)]
            tensors.append(info(f"blk.{layer}.ffn_{matrix}_exps.weight", torch.stack(stack)))
    return tensors


def write(path: Path, kind: str, **more: Any) -> Path:
    keys = {f"deepseek2.{key}": value for key, value in {**KEYS, **FILES[kind], **more}.items()}
    tokenizer = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{i}" for i in range(VOCAB)]}
    tensors = gguf_tensors(kind, hugging_face_weights(kind))
    return write_gguf(path, {"general.architecture": "deepseek2", **keys, **tokenizer}, tensors)


@pytest.mark.parametrize("kind", FILES)
def test_tensors_come_back_as_they_went_in(tmp_path: Path, kind: str) -> None:
    weights = hugging_face_weights(kind)
    checkpoint = open_checkpoint(write(tmp_path / "m.gguf", kind))
    assert set(checkpoint.tensor_names()) == set(weights)
    targets = [(name, torch.zeros(tensor.shape)) for name, tensor in weights.items()]
    checkpoint.upload(targets)
    for (name, target), tensor in zip(targets, weights.values(), strict=True):
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert torch.equal(checkpoint.load(name), tensor), name
        assert torch.equal(target, tensor), name


@pytest.mark.parametrize("kind", FILES)
def test_the_config_builds_the_model_that_takes_them(tmp_path: Path, kind: str) -> None:
    config = open_checkpoint(write(tmp_path / "m.gguf", kind)).config
    model = find_model_class(config)(
        config, Placement(dtype=torch.float32, device=torch.device("cpu"), max_positions=64)
    )
    shapes = {slot.name: tuple(slot.target.shape) for slot in model.weight_slots()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in hugging_face_weights(kind).items()}
    routing = model.blocks[1].mlp.router.routing  # type: ignore[attr-defined]
    assert (routing.num_chosen, routing.factor) == (2, 1.5)
    if "V3" in kind:
        assert routing.scoring is Scoring.SIGMOID and routing.is_normed
        assert routing.groups == Groups(count=3, num_chosen=2, num_best=2)
    else:
        assert routing.scoring is Scoring.SOFTMAX and not routing.is_normed and routing.groups is None


def test_a_stretched_rope(tmp_path: Path) -> None:
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0}
    path = write(tmp_path / "a.gguf", "V2-Lite, new", **yarn, **{"rope.scaling.yarn_log_multiplier": 0.0707})
    scaling = open_checkpoint(path).config["rope_scaling"]
    assert (scaling["mscale"], scaling["mscale_all_dim"]) == (0.707, 0.707)
    scaling = open_checkpoint(write(tmp_path / "b.gguf", "V2-Lite, new", **yarn)).config["rope_scaling"]
    assert scaling["attention_factor"] == 1.0 and "mscale_all_dim" not in scaling


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("V2-Lite, new", {"attention.kv_lora_rank": 24}, r"attn_k_b.*\[3, 20, 12\].*\[3, 24, 12\]"),
        ("V2-Lite, old", {"attention.key_length": 8}, "have 8 columns, of which .* 8 are rotated"),
        ("V2-Lite, old", {"expert_gating_func": 3}, "expert_gating_func is 3"),
        ("V3, old", {"expert_count": 7}, "has 6 experts.*say 7"),
    ],
)
def test_metadata_that_lie(tmp_path: Path, kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        open_checkpoint(write(tmp_path / "m.gguf", kind, **more))
