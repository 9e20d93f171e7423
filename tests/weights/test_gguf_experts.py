"""Experts in GGUF files come back as the tensors that Hugging Face checkpoints have, by either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.table import find_model_class
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.gguf.dequant import BLOCK_TYPES, dequantize
from octavo.weights.shapes import expected_shapes
from tests.weights.crafted import Info, write_gguf

WIDTH, INNER, EXPERTS, VOCAB = 32, 64, 3, 40
SHARED = 96
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "moe_intermediate_size": INNER,
    "shared_expert_intermediate_size": SHARED,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": EXPERTS,
}
KEYS: dict[str, Any] = {
    "block_count": 2,
    "context_length": 128,
    "embedding_length": WIDTH,
    "feed_forward_length": INNER,
    "expert_feed_forward_length": INNER,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 8,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "expert_count": EXPERTS,
    "expert_used_count": 2,
}
FACTORS = {"attention.scale": 0.5, "embedding_scale": 12.0, "residual_scale": 0.25, "logit_scale": 8.0}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("mixtral", {}),
    "qwen2moe": ("qwen2_moe", {"expert_shared_feed_forward_length": SHARED}),
    "qwen3moe": ("qwen3_moe", {}),
    "gpt-oss": ("gpt_oss", {"attention.sliding_window": 16, **YARN}),
    "olmoe": ("olmoe", {}),
    "granitemoe": ("granitemoe", FACTORS),
}
INTERLEAVED = ("llama", "granitemoe")
Weights = dict[str, torch.Tensor]


def hugging_face_weights(model_type: str) -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes({**COMMON, "model_type": model_type}) or {}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def stacked(weights: Weights, layer: int, matrix: str) -> torch.Tensor:
    """All experts' matrices of one kind, as converters stack them."""
    names = [name for name in weights if f"layers.{layer}." in name and f".{matrix}.weight" in name]
    return torch.stack([weights[name] for name in names if ".experts." in name])


def expert_tensors(weights: Weights, layer: int) -> Weights:
    """What GGUF has of a layer's experts, by the end of its name."""
    prefix = f"model.layers.{layer}"
    if f"{prefix}.mlp.experts.gate_up_proj" in weights:  # GPT-OSS
        rows = weights[f"{prefix}.mlp.experts.gate_up_proj"].transpose(1, 2)
        bias = weights[f"{prefix}.mlp.experts.gate_up_proj_bias"]
        return {
            "gate_exps.weight": rows[:, ::2],
            "up_exps.weight": rows[:, 1::2],
            "down_exps.weight": weights[f"{prefix}.mlp.experts.down_proj"].transpose(1, 2),
            "gate_exps.bias": bias[:, ::2],
            "up_exps.bias": bias[:, 1::2],
            "down_exps.bias": weights[f"{prefix}.mlp.experts.down_proj_bias"],
        }
    if f"{prefix}.block_sparse_moe.input_linear.weight" in weights:  # Granite
        gate, up = weights[f"{prefix}.block_sparse_moe.input_linear.weight"].chunk(2, dim=1)
        down = weights[f"{prefix}.block_sparse_moe.output_linear.weight"]
        return {"gate_exps.weight": gate, "up_exps.weight": up, "down_exps.weight": down}
    is_mixtral = f"{prefix}.block_sparse_moe.gate.weight" in weights
    matrices = ("w1", "w3", "w2") if is_mixtral else ("gate_proj", "up_proj", "down_proj")
    kinds = zip(("gate", "up", "down"), matrices, strict=True)
    return {f"{kind}_exps.weight": stacked(weights, layer, matrix) for kind, matrix in kinds}


def is_expert(name: str) -> bool:
    return ".experts." in name or "put_linear" in name


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """What converters do with q and k of families that rotate neighbouring pairs."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def info(name: str, tensor: torch.Tensor) -> Info:
    return Info(name, tuple(tensor.shape), 0, tensor.contiguous().numpy().tobytes())


def gguf_tensors(architecture: str, weights: Weights) -> list[Info]:
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names, tensors = gguf.get_tensor_name_map(arch, 2), []
    for name, tensor in weights.items():
        if is_expert(name):
            continue
        stem, suffix = name.rsplit(".", 1) if not name.endswith("sinks") else (name, "weight")
        if architecture in INTERLEAVED and ("q_proj" in name or "k_proj" in name):
            tensor = permuted(tensor, 4 if "q_proj" in name else 2)
        stored = tensor.squeeze(0) if "shared_expert_gate" in name else tensor  # as converters do
        tensors.append(info(f"{names.get_name(stem)}.{suffix}", stored))
    for layer in range(2):
        for end, tensor in expert_tensors(weights, layer).items():
            tensors.append(info(f"blk.{layer}.ffn_{end}", tensor))
    return tensors


def keys_for(architecture: str, **more: Any) -> dict[str, Any]:
    own = {f"{architecture}.{key}": value for key, value in {**KEYS, **FAMILIES[architecture][1]}.items()}
    tokenizer = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{i}" for i in range(VOCAB)]}
    return {"general.architecture": architecture, **own, **tokenizer, **more}


def write(path: Path, architecture: str) -> tuple[Path, Weights]:
    weights = hugging_face_weights(FAMILIES[architecture][0])
    return write_gguf(path, keys_for(architecture), gguf_tensors(architecture, weights)), weights


@pytest.mark.parametrize("architecture", FAMILIES)
def test_tensors_come_back_as_they_went_in(tmp_path: Path, architecture: str) -> None:
    file, weights = write(tmp_path / "m.gguf", architecture)
    checkpoint = open_checkpoint(file)
    assert set(checkpoint.tensor_names()) == set(weights)
    targets = [(name, torch.zeros(tensor.shape)) for name, tensor in weights.items()]
    checkpoint.upload(targets)
    for (name, target), tensor in zip(targets, weights.values(), strict=True):
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert torch.equal(checkpoint.load(name), tensor), name
        assert torch.equal(checkpoint.load(name, torch.bfloat16), tensor.bfloat16()), name
        assert torch.equal(target, tensor), name


@pytest.mark.parametrize("type_id", [39, 12, 22])
@pytest.mark.parametrize("architecture", ["gpt-oss", "granitemoe", "qwen3moe"])
def test_experts_can_be_had_packed(tmp_path: Path, architecture: str, type_id: int) -> None:
    weights = hugging_face_weights(FAMILIES[architecture][0])
    kind, tensors = BLOCK_TYPES[type_id], gguf_tensors(architecture, weights)
    for each in tensors:
        if each.name.endswith("_exps.weight") and each.shape[-1] % kind.block_size == 0:
            count = int(np.prod(each.shape)) // kind.block_size
            blocks = np.random.default_rng(count).integers(0, 120, (count, kind.block_bytes), dtype=np.uint8)
            each.type_id, each.data = type_id, blocks.tobytes()
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", keys_for(architecture), tensors))
    names = [name for name in weights if is_expert(name) and not name.endswith("bias")]
    is_turned = architecture == "gpt-oss"
    for name in names:
        assert is_turned is (checkpoint.stored_matrix(name) is None)
        stored = checkpoint.stored_matrix(name, is_turned=is_turned)
        assert stored is not None and stored.kind == checkpoint.stored_kind(name)
        numbers = np.empty((stored.rows, stored.columns), dtype=np.float32)
        dequantize(stored.data, next(k for k in BLOCK_TYPES.values() if k.name == stored.kind), numbers)
        rows = checkpoint.load(name, torch.float32)
        rows = rows.transpose(1, 2) if is_turned else rows
        assert torch.equal(torch.from_numpy(numbers), rows.reshape(numbers.shape))


def test_gate_and_up_of_different_types_are_not_joined(tmp_path: Path) -> None:
    tensors = gguf_tensors("gpt-oss", hugging_face_weights("gpt_oss"))
    for each in tensors:
        if each.name == "blk.0.ffn_up_exps.weight":
            each.type_id, each.data = 1, np.zeros(each.shape, dtype=np.float16).tobytes()
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", keys_for("gpt-oss"), tensors))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert (
        checkpoint.stored_matrix(name, is_turned=True) is None and not checkpoint.load(name)[..., 1::2].any()
    )


def test_what_is_joined_of_different_types_loses_nothing(tmp_path: Path) -> None:
    weights = hugging_face_weights("granitemoe")
    tensors = gguf_tensors("granitemoe", weights)
    for each in tensors:
        if each.name == "blk.0.ffn_gate_exps.weight":
            each.type_id, each.data = 1, np.zeros(each.shape, dtype=np.float16).tobytes()
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", keys_for("granitemoe"), tensors))
    name = "model.layers.0.block_sparse_moe.input_linear.weight"
    (_, up), loaded = weights[name].chunk(2, 1), checkpoint.load(name)
    assert not loaded.chunk(2, 1)[0].any() and torch.equal(loaded.chunk(2, 1)[1], up)


def test_half_of_a_joined_tensor(tmp_path: Path) -> None:
    tensors = gguf_tensors("granitemoe", hugging_face_weights("granitemoe"))
    tensors = [each for each in tensors if each.name != "blk.1.ffn_gate_exps.weight"]
    with pytest.raises(
        ModelFileError, match=r"input_linear.weight' the GGUF file has only blk.1.ffn_up_exps"
    ):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", keys_for("granitemoe"), tensors))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_config_builds_the_model_that_takes_them(tmp_path: Path, architecture: str) -> None:
    file, weights = write(tmp_path / "m.gguf", architecture)
    config = open_checkpoint(file).config
    assert config["model_type"] == FAMILIES[architecture][0]
    placement = Placement(dtype=torch.float32, device=torch.device("cpu"), max_positions=64)
    model = find_model_class(config)(config, placement)
    shapes = {slot.name: tuple(slot.target.shape) for slot in model.weight_slots()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in weights.items()}
    routing = model.blocks[0].mlp.router.routing  # type: ignore[attr-defined]
    assert (routing.num_chosen, routing.is_normed) == (2, architecture not in ("qwen2moe", "olmoe"))


def test_gpt_oss_does_not_cut_its_yarn(tmp_path: Path) -> None:
    config = open_checkpoint(write(tmp_path / "m.gguf", "gpt-oss")[0]).config
    assert config["rope_scaling"]["truncate"] is False
    assert (config["sliding_window"], config["attention_bias"]) == (16, True)


def test_the_oldest_mixtrals_have_experts_apart(tmp_path: Path) -> None:
    weights = hugging_face_weights("mixtral")
    tensors = [each for each in gguf_tensors("llama", weights) if "_exps" not in each.name]
    for layer in range(2):
        for end, tensor in expert_tensors(weights, layer).items():
            kind = end.removesuffix("_exps.weight")
            tensors += [
                info(f"blk.{layer}.ffn_{kind}.{expert}.weight", tensor[expert]) for expert in range(EXPERTS)
            ]
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", keys_for("llama"), tensors))
    for name, tensor in weights.items():
        assert torch.equal(checkpoint.load(name), tensor), name


def test_experts_in_blocks_of_four_bits(tmp_path: Path) -> None:
    """MXFP4, as GPT-OSS is distributed: each expert's rows dequantised to their places."""
    weights = hugging_face_weights("gpt_oss")
    tensors, expected = gguf_tensors("gpt-oss", weights), {}
    for each in tensors:
        if each.name.endswith("_exps.weight"):
            count = int(np.prod(each.shape)) // 32
            blocks = np.random.default_rng(count).integers(0, 256, (count, 17), dtype=np.uint8)
            blocks[:, 0] = 120 + blocks[:, 0] % 8
            numbers = np.empty(each.shape, dtype=np.float32)
            dequantize(blocks, BLOCK_TYPES[39], numbers)
            each.type_id, each.data = 39, blocks.tobytes()
            expected[each.name] = torch.from_numpy(numbers)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", keys_for("gpt-oss"), tensors))
    name = "model.layers.1.mlp.experts.gate_up_proj"
    uploaded = torch.empty(checkpoint.shape(name))
    checkpoint.upload([(name, uploaded)])
    for found in (checkpoint.load(name), uploaded):
        assert torch.equal(found.transpose(1, 2)[:, ::2], expected["blk.1.ffn_gate_exps.weight"])
        assert torch.equal(found.transpose(1, 2)[:, 1::2], expected["blk.1.ffn_up_exps.weight"])


@pytest.mark.parametrize(
    ("architecture", "more", "words"),
    [
        ("qwen3moe", {"qwen3moe.expert_count": 5}, "'blk.0.ffn_gate_exps.weight' has 3 experts.*say 5"),
        ("qwen3moe", {"qwen3moe.expert_count": 0}, "qwen3moe.expert_count' is 0"),
        ("gpt-oss", {"gpt-oss.expert_used_count": 0}, "gpt-oss.expert_used_count' is 0"),
        ("granitemoe", {"granitemoe.expert_shared_feed_forward_length": 64}, "an expert of 64 that all"),
        (
            "qwen2moe",
            {"qwen2moe.expert_shared_feed_forward_length": 64},
            r"shape \[96, 32\].*says \[64, 32\]",
        ),
    ],
)
def test_metadata_that_lie(tmp_path: Path, architecture: str, more: dict[str, Any], words: str) -> None:
    tensors = gguf_tensors(architecture, hugging_face_weights(FAMILIES[architecture][0]))
    path = write_gguf(tmp_path / "m.gguf", keys_for(architecture, **more), tensors)
    with pytest.raises(ModelFileError, match=words):
        open_checkpoint(path)


def test_experts_where_an_architecture_has_none(tmp_path: Path) -> None:
    keys = {key.replace("qwen3moe.", "qwen3."): value for key, value in keys_for("qwen3moe").items()}
    tensors = gguf_tensors("qwen3moe", hugging_face_weights("qwen3_moe"))
    path = write_gguf(tmp_path / "m.gguf", {**keys, "general.architecture": "qwen3"}, tensors)
    with pytest.raises(ModelFileError, match="mixture of 3 experts; models of the architecture 'qwen3'"):
        open_checkpoint(path)


def test_a_tensor_that_is_not_stacked(tmp_path: Path) -> None:
    tensors = gguf_tensors("olmoe", hugging_face_weights("olmoe"))
    flat = torch.zeros(EXPERTS, WIDTH)
    tensors = [info(each.name, flat) if each.name == "blk.1.ffn_up_exps.weight" else each for each in tensors]
    path = write_gguf(tmp_path / "m.gguf", keys_for("olmoe"), tensors)
    with pytest.raises(ModelFileError, match=r"blk.1.ffn_up_exps.weight' has the shape \[3, 32\]; 3 dim"):
        open_checkpoint(path)
