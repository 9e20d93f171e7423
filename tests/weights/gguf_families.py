"""Tiny random models of transformers as GGUF files: names, keys and layouts as converters make them.

A family is a line: the case of tests/conformance, the keys of the file, and what happens to its tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import torch

from tests.conformance.families import FAMILIES as CONFORMANCE
from tests.conformance.families import OLDER
from tests.tiny import VOCAB_SIZE, save_model

Named = Iterator[tuple[str, torch.Tensor]]
WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER = 48, 6, 2, 12, 88


@dataclass(frozen=True, kw_only=True)
class GGUFFamily:
    model_type: str
    overrides: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    """Beside those of all; `None` leaves one of them out."""
    convert: Callable[[str, torch.Tensor, dict[str, Any]], Named] = lambda name, tensor, _: iter(
        [(name, tensor)]
    )
    """(Hugging Face's name, tensor, config) -> names that gguf's map knows, or GGUF's own, and tensors."""


def common(layers: int) -> dict[str, Any]:
    return {
        "block_count": layers,
        "context_length": 1024,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
    }


def longrope_keys(longest: int, original: int) -> dict[str, Any]:
    factor = math.sqrt(1 + math.log(longest / original) / math.log(original))
    return {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": factor,
        "attention.sliding_window": 0,
    }


RMS = {"attention.layer_norm_rms_epsilon": 1e-5}
EPSILON = {"attention.layer_norm_epsilon": 1e-5}
WHOLE_WIDTH = {"attention.head_count_kv": HEADS, "rope.dimension_count": 8}


def turned(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    yield name, tensor.t() if tensor.ndim == 2 and ".h." in name else tensor


def by_kind(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """All queries, all keys, all values; checkpoints have them by KV head."""
    if "query_key_value" in name:
        is_falcon = config["model_type"] == "falcon"
        kv_heads = falcon_kv_heads(config) if is_falcon else config["num_attention_heads"]
        width = config["hidden_size"] // config["num_attention_heads"]
        rows = tensor.reshape(kv_heads, -1, width, *tensor.shape[1:])
        parts = (rows[:, :-2], rows[:, -2:-1], rows[:, -1:])
        tensor = torch.cat([part.reshape(-1, *tensor.shape[1:]) for part in parts])
    yield name, tensor


def falcon_kv_heads(config: dict[str, Any]) -> int:
    return config["num_kv_heads"] if config["new_decoder_architecture"] else 1


def plus_one(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    yield name, tensor + 1 if name.endswith("norm.weight") else tensor


def with_mixers(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """What converters do with the tensors of a Mamba-2."""
    if name.endswith("dt_bias"):
        name = name.replace("dt_bias", "dt_proj.bias")
    elif name.endswith("conv1d.weight"):
        tensor = tensor.squeeze()
    elif name.endswith((".A_log", ".D")):
        tensor = (-tensor.exp() if name.endswith("A_log") else tensor)[:, None]
    elif name.endswith(("mixer.norm.weight", "mamba.norm.weight")):
        groups = config.get("n_groups") or config["mamba_n_groups"]
        tensor = tensor.view(groups, -1)
    yield name, tensor


def with_factors(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Falcon-H1's, within its weights."""
    into, ssm = config["attention_in_multiplier"], config["ssm_multipliers"]
    inner, columns = config["mamba_d_ssm"], config["mamba_n_groups"] * config["mamba_d_state"]
    parts = [inner, inner, columns, columns, config["mamba_n_heads"]]
    factors = {
        "gate_proj": config["mlp_multipliers"][0],
        "down_proj": config["mlp_multipliers"][1],
        "k_proj": config["key_multiplier"] * into,
        "q_proj": into,
        "v_proj": into,
        "o_proj": config["attention_out_multiplier"],
        "out_proj": config["ssm_out_multiplier"],
        "in_proj": config["ssm_in_multiplier"]
        * torch.cat([torch.full((n, 1), factor) for n, factor in zip(parts, ssm, strict=True)]),
        "lm_head": config["lm_head_multiplier"],
        "embed_tokens": config["embedding_multiplier"],
    }
    (factor,) = [factors[part] for part in name.split(".") if part in factors] or [1.0]
    yield from with_mixers(name, tensor * factor, config)


def granite(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Queries and keys in pairs; gate and up apart; what is shared has two names."""
    has_experts = config["num_local_experts"] > 0
    layer = ".".join(name.split(".")[:3]).replace("model.layers", "blk")
    if "q_proj" in name or "k_proj" in name:
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        yield name, in_pairs(tensor, heads)
    elif name.endswith("block_sparse_moe.input_linear.weight"):
        gate, up = tensor.chunk(2, dim=1)
        yield from ((f"{layer}.ffn_gate_exps.weight", gate), (f"{layer}.ffn_up_exps.weight", up))
    elif "shared_mlp" in name:
        end = "_shexp" if has_experts else ""
        parts = {"down": tensor}
        if "input_linear" in name:
            parts = dict(zip(("gate", "up"), tensor.chunk(2), strict=True))
        yield from ((f"{layer}.ffn_{part}{end}.weight", rows) for part, rows in parts.items())
    else:
        yield from with_mixers(name, tensor, config)


def in_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    return tensor.reshape(heads, 2, -1, tensor.shape[-1]).swapaxes(1, 2).reshape(tensor.shape)


def qwen3_next(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    layer = ".".join(name.split(".")[:3]).replace("model.layers", "blk")
    if "in_proj_qkvz" in name:
        groups, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
        value = config["linear_value_head_dim"] * config["linear_num_value_heads"] // groups
        parts = tensor.view(groups, -1, tensor.shape[1]).split([key, key, value, value], 1)
        flat = [part.reshape(-1, tensor.shape[1]) for part in parts]
        yield f"{layer}.attn_qkv.weight", torch.cat(flat[:3])
        yield f"{layer}.attn_gate.weight", flat[3]
    elif ".experts." in name:
        yield from ()
    elif name.endswith("A_log"):
        yield name, -tensor.exp()
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        yield name, tensor + 1
    elif name.endswith("shared_expert_gate.weight"):
        yield name, tensor.squeeze(0)
    else:
        yield from with_mixers(name, tensor, config)


def stacked_experts(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those that checkpoints have one by one, by GGUF's names."""
    found: dict[str, list[torch.Tensor]] = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        if "experts" in parts and parts[-2].endswith("_proj"):
            matrix = parts[-2].removesuffix("_proj")
            found.setdefault(f"blk.{parts[2]}.ffn_{matrix}_exps.weight", []).append((int(parts[-3]), tensor))
    return {
        name: torch.stack([one for _, one in sorted(each, key=lambda i: i[0])])
        for name, each in found.items()
    }


FALCON = {**OLDER, "ffn_hidden_size": 88}
MAMBA2_KEYS = {
    "ssm.conv_kernel": 4,
    "ssm.state_size": 20,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 96,
}
FALCON_H1_KEYS = {
    **MAMBA2_KEYS,
    "attention.key_length": 8,
    "attention.value_length": 8,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 1e4,
}
GRANITE_LAYERS = ["mamba", "mamba", "attention", "mamba"]
GRANITE_KEYS = {
    **MAMBA2_KEYS,
    "attention.head_count_kv": [0, 0, KV_HEADS, 0],
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.scaling.finetuned": False,
    "embedding_scale": 3.5,
    "residual_scale": 0.7,
    "logit_scale": 2.5,
}
FAMILIES: dict[str, dict[str, GGUFFamily]] = {
    "gpt2": {
        "": GGUFFamily(
            model_type="gpt2",
            overrides={**OLDER, "n_inner": 88},
            keys={**EPSILON, "attention.head_count_kv": None},
            convert=turned,
        )
    },
    "gptneox": {
        "parallel": GGUFFamily(
            model_type="gpt_neox",
            overrides={
                "num_key_value_heads": ...,
                "head_dim": ...,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            keys={
                **EPSILON,
                "rope.dimension_count": 4,
                "attention.head_count_kv": None,
                "use_parallel_residual": True,
            },
            convert=by_kind,
        ),
        "in turn": GGUFFamily(
            model_type="gpt_neox",
            overrides={
                "num_key_value_heads": ...,
                "head_dim": ...,
                "use_parallel_residual": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
            },
            keys={
                **EPSILON,
                "rope.dimension_count": 8,
                "attention.head_count_kv": None,
                "use_parallel_residual": False,
            },
            convert=by_kind,
        ),
    },
    "phi2": {
        "": GGUFFamily(
            model_type="phi",
            overrides={"head_dim": ..., "num_key_value_heads": HEADS},
            keys={**EPSILON, "attention.head_count_kv": HEADS, "rope.dimension_count": 4},
        )
    },
    "falcon": {
        "7B": GGUFFamily(
            model_type="falcon",
            overrides={**FALCON, "tie_word_embeddings": False},
            keys={**EPSILON, "attention.head_count_kv": 1, "tensor_data_layout": "jploski"},
            convert=by_kind,
        ),
        "40B": GGUFFamily(
            model_type="falcon",
            overrides={**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
            keys=EPSILON,
            convert=by_kind,
        ),
        "11B": GGUFFamily(
            model_type="falcon",
            overrides={
                **FALCON,
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
                "num_ln_in_parallel_attn": 1,
            },
            keys=EPSILON,
            convert=by_kind,
        ),
    },
    "stablelm": {
        "": GGUFFamily(
            model_type="stablelm",
            overrides={
                "head_dim": ...,
                "use_qkv_bias": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            keys={**EPSILON, "rope.dimension_count": 4, "use_parallel_residual": False},
        ),
        "parallel": GGUFFamily(
            model_type="stablelm",
            overrides={
                "head_dim": ...,
                "use_parallel_residual": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
            },
            keys={**EPSILON, "rope.dimension_count": 2, "use_parallel_residual": True},
        ),
    },
    "starcoder2": {
        "": GGUFFamily(
            model_type="starcoder2",
            overrides={"head_dim": ..., "sliding_window": None},
            keys={**EPSILON, "rope.freq_base": 1e4},
        )
    },
    "nemotron": {
        "": GGUFFamily(
            model_type="nemotron",
            overrides={"head_dim": ...},
            keys={**EPSILON, "rope.dimension_count": 4, "rope.scaling.type": "none"},
            convert=plus_one,
        )
    },
    "command-r": {
        "": GGUFFamily(
            model_type="cohere",
            overrides={"head_dim": ..., "logit_scale": 0.3},
            keys={**EPSILON, "logit_scale": 0.3, "rope.scaling.type": "none", "rope.freq_base": 5e5},
        )
    },
    "phi3": {
        "4k": GGUFFamily(
            model_type="phi3",
            overrides={"head_dim": 8, "sliding_window": 24, "original_max_position_embeddings": 1024},
            keys={**RMS, "rope.dimension_count": 8, "attention.sliding_window": 24},
        ),
        "short longrope": GGUFFamily(
            model_type="phi3",
            overrides=CONFORMANCE["phi3, short longrope"][1],
            keys={**RMS, "rope.dimension_count": 8, **longrope_keys(1024, 700)},
        ),
        "long longrope, half rotated": GGUFFamily(
            model_type="phi3",
            overrides=CONFORMANCE["phi3, long longrope, half rotated"][1],
            keys={**RMS, "rope.dimension_count": 4, **longrope_keys(1024, 14)},
        ),
    },
    "glm4": {
        "": GGUFFamily(
            model_type="glm4",
            overrides={"attention_bias": True},
            keys={
                "attention.layer_norm_rms_epsilon": 1.5625e-07,
                "attention.key_length": HEAD_DIM,
                "attention.value_length": HEAD_DIM,
                "rope.dimension_count": 6,
                "rope.freq_base": 1e4,
            },
        )
    },
    "mamba2": {
        "": GGUFFamily(
            model_type="mamba2",
            overrides={**CONFORMANCE["mamba2"][1], "n_groups": 1},
            keys={
                **MAMBA2_KEYS,
                "context_length": 2**20,
                "feed_forward_length": 0,
                "attention.head_count": 0,
                "attention.head_count_kv": None,
                "attention.layer_norm_rms_epsilon": 1e-5,
                "ssm.group_count": 1,
            },
            convert=with_mixers,
        )
    },
    "falcon-h1": {
        "norms and factors": GGUFFamily(
            model_type="falcon_h1",
            overrides={**CONFORMANCE["falcon h1"][1], "mamba_norm_before_gate": False, "mamba_d_ssm": 96},
            keys=FALCON_H1_KEYS,
            convert=with_factors,
        ),
        "no norms": GGUFFamily(
            model_type="falcon_h1",
            overrides={
                **CONFORMANCE["falcon h1, gated alone"][1],
                "mamba_d_ssm": 96,
                "tie_word_embeddings": False,
            },
            keys=FALCON_H1_KEYS,
            convert=with_factors,
        ),
    },
    "granitehybrid": {
        "dense": GGUFFamily(
            model_type="granitemoehybrid",
            overrides={**CONFORMANCE["granite hybrid"][1], "layer_types": GRANITE_LAYERS},
            keys={**GRANITE_KEYS, "feed_forward_length": 56, "attention.scale": 0.11},
            convert=granite,
        ),
        "experts": GGUFFamily(
            model_type="granitemoehybrid",
            overrides={
                **CONFORMANCE["granite hybrid"][1],
                "layer_types": GRANITE_LAYERS,
                "num_local_experts": 5,
                "num_experts_per_tok": 2,
            },
            keys={
                **GRANITE_KEYS,
                "attention.scale": 0.11,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_shared_feed_forward_length": 56,
            },
            convert=granite,
        ),
    },
    "qwen3next": {
        "": GGUFFamily(
            model_type="qwen3_next",
            overrides={
                **CONFORMANCE["qwen3 next"][1],
                "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
                "mlp_only_layers": [],
            },
            keys={
                "attention.key_length": HEAD_DIM,
                "attention.value_length": HEAD_DIM,
                "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.dimension_count": 6,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_feed_forward_length": 28,
                "expert_shared_feed_forward_length": 20,
                "ssm.conv_kernel": 4,
                "ssm.state_size": 12,
                "ssm.group_count": 2,
                "ssm.time_step_rank": 6,
                "ssm.inner_size": 60,
                "full_attention_interval": 4,
            },
            convert=qwen3_next,
        )
    },
}
"""GGUF's architecture -> its variants."""


def save(
    folder: Path,
    architecture: str,
    variant: str = "",
    *,
    without: str = "",
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    wider: dict[str, Any] | None = None,
    **keys: Any,
) -> tuple[Path, Path]:
    """The folder of the model, and the GGUF file of the same numbers.

    without: the tensor, by Hugging Face's name, that the file lacks. wider: over the config. keys: over the
    file's.
    """
    from safetensors.torch import load_file

    family = FAMILIES[architecture][variant]
    model = save_model(folder / "model", family.model_type, **{**family.overrides, **(wider or {})})
    weights = load_file(model / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if name != without}
    file = folder / "tiny.gguf"
    write(file, architecture, family, weights, read_config(model), kind=kind, **keys)
    return model, file


def read_config(model: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model).to_dict()


def write(
    file: Path,
    architecture: str,
    family: GGUFFamily,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    **more: Any,
) -> None:
    """kind: of matrices. more: keys over those of the family."""
    layers = config.get("num_hidden_layers") or config["n_layer"]
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in {**common(layers), **family.keys, **more}.items():
        if value is not None:
            add_value(writer, f"{architecture}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{index}" for index in range(VOCAB_SIZE)])
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, layers)
    for name, tensor in {**weights, **stacked_experts(weights)}.items():
        for called, stored in family.convert(name, tensor, config):
            data = stored.contiguous().numpy()
            packs = kind != gguf.GGMLQuantizationType.F32 and data.ndim >= 2 and data.shape[-1] % 32 == 0
            if packs:
                data = gguf.quants.quantize(data, kind)
            writer.add_tensor(gguf_name(names, called), data, raw_dtype=kind if packs else None)
    rope = config.get("rope_parameters") or {}
    for length in ("long", "short"):
        if f"{length}_factor" in rope:
            factors = torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(names: gguf.TensorNameMap, called: str) -> str:
    if called.startswith(("blk.", "output", "token_embd")):
        return called
    found = names.get_name(called, try_suffixes=(".weight", ".bias"))
    assert found is not None, called
    return found


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            raise AssertionError(value)


CASES = [(name, variant) for name, variants in FAMILIES.items() for variant in variants]
