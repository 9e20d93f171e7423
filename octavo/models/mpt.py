"""MPT: linear biases in the place of positions, layer norms and products without biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.linear_biases import bias_slopes
from octavo.models.blocks.layer_norm_decoder import LayerNormDecoder, Make, PartNames, plain_facts
from octavo.models.decoder_config import read_number

NAMES = PartNames(
    embedding="transformer.wte",
    layers="transformer.blocks",
    norm="transformer.norm_f",
    attention_norm="norm_1",
    mlp_norm="norm_2",
    qkv=("attn.Wqkv",),
    out="attn.out_proj",
    up=("ffn.up_proj",),
    down="ffn.down_proj",
)
USUAL = {"expansion_ratio": 4, "no_bias": True, "logit_scale": None}
USUAL_ATTENTION = {"alibi": True, "attn_type": "multihead_attention", "prefix_lm": False, "qk_ln": False}
"""Entries that transformers' model does not heed: of another value nothing is known to compute it."""


class MptForCausalLM(LayerNormDecoder):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        attention = _attention(config)
        _check_usual(config, USUAL, "")
        _check_usual(attention, USUAL_ATTENTION, "attn_config.")
        inner = 4 * int(config.get("hidden_size") or 0)
        tied = {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
        facts = plain_facts(config, intermediate_size=inner, **tied)
        return Make(
            facts=facts,
            names=NAMES,
            epsilon=read_number(config, "layer_norm_epsilon", 1e-5),
            activation="gelu",
            has_qkv_bias=False,
            has_out_bias=False,
            has_mlp_bias=False,
            has_norm_bias=False,
            rotates=False,
            clip=read_number(attention, "clip_qkv", 0) if attention.get("clip_qkv") else None,
            bias_slopes=bias_slopes(facts.num_heads, read_number(attention, "alibi_bias_max", 8)),
        )

    def score_scale(self, config: Mapping[str, Any], index: int) -> float:
        return read_number(_attention(config), "softmax_scale", super().score_scale(config, index))


def _attention(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("attn_config")
    if found is not None and not isinstance(found, Mapping):
        raise ModelFileError(f"The model's attn_config is a {type(found).__name__}; it must be an object.")
    return found or {}


def _check_usual(config: Mapping[str, Any], usual: Mapping[str, Any], where: str) -> None:
    for name, value in usual.items():
        if config.get(name, value) != value:
            raise ModelFileError(
                f"The model's config has {where}{name} {str(config[name])[:40]}; only {value} is "
                "supported, here and by transformers."
            )
