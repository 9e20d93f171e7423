"""What is special in GGUF files of DeepSeek's models and those like them (architecture deepseek2).

A head's matrices that make its keys and values stand in one tensor in older files, and in two in newer ones,
where keys' inputs come last.

H heads, N width of a head's key but for the rotated part, V width of values, C width of the latent.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.gguf.views import Part, View, Views

if TYPE_CHECKING:
    import torch

SOFTMAX, SIGMOID = 1, 2
"""Values of expert_gating_func."""
_GROUPS = {256: (8, 4), 160: (8, 3)}
"""Experts of DeepSeek V3 and V2 -> their groups and the ones chosen, which the first files do not say."""
_KEYS_OR_VALUES = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.attn_([kv])_b\.weight", re.ASCII)


def rotated_width(keys: Keys) -> int:
    """The width of heads, as far as the rope is concerned."""
    return keys.count("rope.dimension_count")


def extend_config(config: dict[str, Any], keys: Keys) -> None:
    """Raises ModelFileError for what the model cannot do without."""
    key = keys.optional_count("attention.key_length_mla") or keys.count("attention.key_length")
    rotated = rotated_width(keys)
    if key <= rotated:
        raise ModelFileError(
            f"Keys of the GGUF model have {key} columns, of which {keys.prefix}.rope.dimension_count "
            f"{rotated} are rotated; some must not be."
        )
    config |= {
        "num_key_value_heads": config["num_attention_heads"],
        "q_lora_rank": keys.optional_count("attention.q_lora_rank"),
        "kv_lora_rank": keys.count("attention.kv_lora_rank"),
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key - rotated,
        "v_head_dim": keys.optional_count("attention.value_length_mla")
        or keys.count("attention.value_length"),
        "first_k_dense_replace": keys.optional_count("leading_dense_block_count") or 0,
        "n_shared_experts": keys.optional_count("expert_shared_count"),
        "routed_scaling_factor": keys.number("expert_weights_scale", 1.0),
    }
    _routing(config, keys)


def _routing(config: dict[str, Any], keys: Keys) -> None:
    """V2 scores experts by softmax, V3 by sigmoid."""
    groups, chosen = _GROUPS.get(config.get("num_experts") or 0, (1, 1))
    config["n_group"] = groups = keys.count("expert_group_count", groups)
    config["topk_group"] = keys.count("expert_group_used_count", chosen)
    is_normed = bool(keys.metadata.get(f"{keys.prefix}.expert_weights_norm"))
    gating = keys.count("expert_gating_func", SOFTMAX)
    if gating not in (SOFTMAX, SIGMOID):
        raise ModelFileError(
            f"{keys.prefix}.expert_gating_func is {gating}; {SOFTMAX} (softmax) and {SIGMOID} (sigmoid) are "
            "supported."
        )
    config["norm_topk_prob"] = is_normed
    if gating == SIGMOID:
        config |= {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    else:
        config["topk_method"] = "greedy" if groups == 1 else "group_limited_greedy"


def add_split_tensor(views: Views, tensor: GGUFTensor, name: str | None, config: dict[str, Any]) -> bool:  # noqa: ARG001
    """Add what a half of kv_b_proj shows, [H, C, N] or [H, V, C]; False for other tensors."""
    match = _KEYS_OR_VALUES.fullmatch(tensor.name)
    if match is None:
        return False
    heads, latent = config["num_attention_heads"], config["kv_lora_rank"]
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    is_key = match[2] == "k"
    wanted = (heads, latent, nope) if is_key else (heads, value, latent)
    if tensor.shape != wanted:
        raise ModelFileError(
            f"The GGUF tensor {tensor.name!r} has the shape {list(tensor.shape)}; its metadata say "
            f"{list(wanted)}."
        )
    joined = f"model.layers.{match[1]}.self_attn.kv_b_proj.weight"
    view = views.setdefault(joined, View((heads * (nope + value), latent)))
    view.parts.append(
        Part(tensor=tensor, shape=tensor.shape, take=partial(_take, is_key=is_key, heads=heads, nope=nope))
    )
    return True


def _take(whole: torch.Tensor, *, is_key: bool, heads: int, nope: int) -> torch.Tensor:
    by_head = whole.view(heads, -1, whole.shape[1])
    return by_head[:, :nope].transpose(1, 2) if is_key else by_head[:, nope:]
