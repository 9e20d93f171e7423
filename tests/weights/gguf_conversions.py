"""What converters to GGUF do with the tensors of each family: another order, another form, another name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

Named = Iterator[tuple[str, torch.Tensor]]


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


def bloom(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """By kind too, under the names of BigScience's own files."""
    yield from by_kind(name.removeprefix("transformer."), tensor, config)


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


def llama(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Queries and keys in pairs, biases of them too."""
    if "q_proj" in name or "k_proj" in name:
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        tensor = in_pairs(tensor[:, None] if tensor.ndim == 1 else tensor, heads).reshape(tensor.shape)
    yield name, tensor


def without_experts(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Which `stacked_experts` gives."""
    if ".experts." not in name:
        yield name, tensor.squeeze(0) if name.endswith("shared_expert_gate.weight") else tensor


def glm4_moe(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Converters call the bias of the choice a bias of its own."""
    yield from without_experts(
        name.replace("e_score_correction_bias", "e_score_correction.bias"), tensor, config
    )


def glm4_moe_that_drafts(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> Named:
    """Behind the last layer one that only drafts."""
    yield from glm4_moe(name, tensor, config)
    if name == "model.norm.weight":
        layer, width = f"blk.{config['num_hidden_layers']}", len(tensor)
        yield f"{layer}.attn_norm.weight", tensor
        yield f"{layer}.ffn_gate_exps.weight", torch.ones(config["n_routed_experts"], 3, width)
        yield f"{layer}.nextn.eh_proj.weight", torch.ones(width, 2 * width)
        yield f"{layer}.nextn.shared_head_norm.weight", tensor
