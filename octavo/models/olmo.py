"""OLMo 2 and 3: norms stand behind attention and MLP, queries and keys are normalised over all heads.

Most layers of OLMo 3 see only a window; these never stretch their rope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.attention import HeadNorms, HeadShape, SelfAttention
from octavo.layers.placement import Placement
from octavo.layers.rope import RopeFacts, rotation_table
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import DecoderConfig
from octavo.models.layer_types import FULL, SLIDING, every_nth_full, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM
from octavo.ops.paged_plain import AttentionTerms

INTERVAL = 4
"""Where a config of OLMo 3 says nothing: every fourth layer sees all."""
DEFAULT_THETA = 500000.0
DEFAULT_WINDOW = 4096


class Olmo2ForCausalLM(LlamaForCausalLM):
    names: ClassVar[BranchNames] = BranchNames(
        after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm"
    )

    @classmethod
    def read_clip(cls, config: Mapping[str, Any]) -> float | None:  # noqa: ARG003
        """What queries, keys and values are kept within."""
        return None

    def make_layer(
        self,
        config: Mapping[str, Any],
        facts: DecoderConfig,
        place: LayerPlace,
    ) -> BranchLayer:
        attention = SelfAttention(
            place.index,
            facts.hidden_size,
            HeadShape(
                num_heads=facts.num_heads,
                num_kv_heads=facts.num_kv_heads,
                head_dim=facts.head_dim,
                clip=self.read_clip(config),
            ),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            terms=AttentionTerms(scale=facts.head_dim**-0.5, window=place.window),
            norms=HeadNorms(epsilon=facts.rms_norm_eps, is_whole=True),
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )
        mlp = self.make_mlp(config, facts, place)
        return BranchLayer(attention, mlp, facts, self.names, placement=place.placement)


class Olmo3ForCausalLM(Olmo2ForCausalLM):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        rope = _rope_of(config, FULL)
        return DecoderConfig.from_config(
            {"sliding_window": DEFAULT_WINDOW, **config, "rope_parameters": rope}
        )

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        return windows_of(_types(config, facts.num_layers), facts)

    def layer_rotations(
        self, config: Mapping[str, Any], facts: DecoderConfig, placement: Placement
    ) -> list[torch.Tensor | None]:
        near = RopeFacts.from_config({**config, "rope_parameters": _rope_of(config, SLIDING)}, facts.head_dim)
        rotations = {FULL: rotation_table(facts.rope, placement), SLIDING: rotation_table(near, placement)}
        return [rotations[kind] for kind in _types(config, facts.num_layers)]


def _types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    return layer_types(config, num_layers, every_nth_full(num_layers, INTERVAL))


def _rope_of(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The rope_parameters of one type of layer. Older configs have one rope_scaling, for full layers."""
    by_kind = config.get("rope_parameters")
    if by_kind is None:
        by_kind = {FULL: config.get("rope_scaling")}
    elif not any(isinstance(by_kind.get(name), Mapping) for name in (FULL, SLIDING)):
        raise ModelFileError(
            f"rope_parameters of an OLMo 3 config must have the entries {FULL} and {SLIDING}; "
            f"it has {', '.join(map(str, by_kind)) or 'none'}."
        )
    theta = config.get("rope_theta") or DEFAULT_THETA
    return {"rope_type": "default", "rope_theta": theta, **(by_kind.get(kind) or {})}
