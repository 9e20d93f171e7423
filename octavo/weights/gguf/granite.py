"""GGUF files of IBM's Granite: dense, with experts, and the hybrid whose layers mostly are Mamba-2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from octavo.base.errors import ModelFileError
from octavo.weights.gguf import names
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.mamba import Mixer, add_mixer_tensor, mixer_names
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.gguf.views import JoinedNames, Part, View, Views

if TYPE_CHECKING:
    import torch

EXPERTS = JoinedNames(
    "block_sparse_moe",
    gate_up="input_linear.weight",
    down="output_linear.weight",
    is_alternating=False,
)
_SHARED = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.ffn_(gate|up|down)(?:_shexp)?\.weight", re.ASCII)
"""What all tokens share, beside experts or without."""


def _factors(config: Config, keys: Keys) -> None:
    for ours, theirs in (
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
    ):
        value = keys.number(theirs)
        if value is None:
            raise ModelFileError(f"The GGUF file has no '{keys.prefix}.{theirs}', which Granite needs.")
        config[ours] = value


def _with_experts(config: Config, keys: Keys) -> None:
    shared = keys.optional_count("expert_shared_feed_forward_length")
    if shared is not None:
        raise ModelFileError(
            f"The GGUF file holds a Granite with an expert of {shared} that all tokens share; only those "
            "without are supported."
        )
    keys.count("expert_count")
    _factors(config, keys)


def _hybrid(config: Config, keys: Keys) -> None:
    """Layers without KV heads are Mamba's. Attention knows no positions."""
    if keys.flag("rope.scaling.finetuned", False):
        raise ModelFileError(
            f"{keys.prefix}.rope.scaling.finetuned is set: the GGUF file holds a Bamba or another hybrid "
            "that rotates keys. Only Granite 4 is supported, which does not."
        )
    kv_heads = keys.by_layer("attention.head_count_kv")
    if kv_heads is None or len(kv_heads) != config["num_hidden_layers"]:
        stated = "one value" if kv_heads is None else f"{len(kv_heads)} values"
        raise ModelFileError(
            f"{keys.prefix}.attention.head_count_kv has {stated} for {config['num_hidden_layers']} layers; "
            "it says which of them attend."
        )
    _factors(config, keys)
    mixer = Mixer.read(keys)
    shared = keys.optional_count("expert_shared_feed_forward_length")
    config |= mixer.config() | {
        "mamba_expand": mixer.expand(config["hidden_size"]),
        "layer_types": ["attention" if count else "mamba" for count in kv_heads],
        "position_embedding_type": "nope",
        "num_local_experts": config.get("num_experts", 0),
        "shared_intermediate_size": shared or config["intermediate_size"],
        "attention_bias": keys.has_tensor("attn_output.bias"),
    }


def _add_hybrid_tensor(views: Views, tensor: GGUFTensor, name: str | None, config: Config) -> bool:
    """Gate and up of what is shared are one matrix in checkpoints."""
    match = _SHARED.fullmatch(tensor.name)
    if match is None:
        return add_mixer_tensor(views, tensor, name, config)
    layer = f"model.layers.{match[1]}.shared_mlp"
    if match[2] == "down":
        views[f"{layer}.output_linear.weight"] = View.of(tensor)
        return True
    inner, is_gate = tensor.shape[0], match[2] == "gate"

    def take(whole: torch.Tensor) -> torch.Tensor:
        return whole[:inner] if is_gate else whole[-inner:]

    view = views.setdefault(f"{layer}.input_linear.weight", View((2 * inner, *tensor.shape[1:])))
    view.parts.append(Part(tensor=tensor, shape=tensor.shape, take=take))
    return True


GRANITES: dict[str, Architecture] = {
    "granite": Architecture(
        class_name="GraniteForCausalLM",
        model_type="granite",
        layer_names=names.LLAMA_LAYER,
        has_interleaved_rope=True,
        extend=_factors,
    ),
    "granitemoe": Architecture(
        class_name="GraniteMoeForCausalLM",
        model_type="granitemoe",
        layer_names=names.GRANITE_MOE_LAYER,
        has_interleaved_rope=True,
        experts=EXPERTS,
        extend=_with_experts,
    ),
    "granitehybrid": Architecture(
        class_name="GraniteMoeHybridForCausalLM",
        model_type="granitemoehybrid",
        layer_names={**names.GRANITE_MOE_LAYER, **mixer_names("mamba")},
        has_interleaved_rope=True,
        experts=EXPERTS,
        add_own_tensor=_add_hybrid_tensor,
        extend=_hybrid,
    ),
}
"""general.architecture -> how it is stored."""
