"""Falcon-H1: every layer attends and remembers side by side; a factor at nearly every joint.

T tokens, E width, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.mamba2 import GatedNorm, Mamba2
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.rope import rotation_table
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.hybrid_decoder import HybridDecoder, Layer, states_of
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.mamba2_config import Mamba2Names, read_mamba2
from octavo.ops.activation import gated_silu
from octavo.ops.paged_plain import AttentionTerms

NAMES = Mamba2Names(inner="mamba_d_ssm")


class FalconH1ForCausalLM(HybridDecoder):
    norm_name = "model.final_layernorm"

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.embedding_factor = read_number(config, "embedding_multiplier", 1.0)
        self.logits_factor = read_number(config, "lm_head_multiplier", 1.0)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(config)

    def make_layers(self, config: Mapping[str, Any], placement: Placement) -> list[Layer]:
        rotation_PD = rotation_table(self.facts.rope, placement)
        return [
            ParallelLayer(
                self._attention(index, config, rotation_PD, placement),
                self._mamba(index, config, placement),
                self.facts,
                config,
                placement,
            )
            for index in range(self.facts.num_layers)
        ]

    def _attention(
        self, index: int, config: Mapping[str, Any], rotation_PD: torch.Tensor, placement: Placement
    ) -> SelfAttention:
        """The factor of keys is one of scores."""
        facts = self.facts
        scale = read_number(config, "key_multiplier", 1.0) * facts.head_dim**-0.5
        return SelfAttention(
            index,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            terms=AttentionTerms(scale=scale),
            rotation_PD=rotation_PD,
            placement=placement,
        )

    def _mamba(self, index: int, config: Mapping[str, Any], placement: Placement) -> Mamba2:
        norm = GatedNorm(
            epsilon=self.facts.rms_norm_eps,
            gates_first=config.get("mamba_norm_before_gate") is False,
        )
        return Mamba2(
            index,
            self.facts.hidden_size,
            read_mamba2(config, NAMES),
            has_bias=bool(config.get("mamba_proj_bias")),
            has_out_bias=bool(config.get("projectors_bias")),
            has_conv_bias=config.get("mamba_conv_bias") is not False,
            norm=norm if config.get("mamba_rms_norm") else None,
            part_factors=read_factors(config, "ssm_multipliers", 5),
            placement=placement,
        )

    def first_inputs(self, x_TE: torch.Tensor) -> torch.Tensor:
        return x_TE * self.embedding_factor

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden_SE) * self.logits_factor


class ParallelLayer(nn.Module):
    """x + mamba(norm(x)) + attention(norm(x)), then x + mlp(norm(x)), with factors before and behind."""

    def __init__(
        self,
        attention: SelfAttention,
        mamba: Mamba2,
        facts: DecoderConfig,
        config: Mapping[str, Any],
        placement: Placement,
    ) -> None:
        super().__init__()
        self.mixer_norm, self.mlp_norm = (
            RMSNorm(facts.hidden_size, epsilon=facts.rms_norm_eps, placement=placement) for _ in range(2)
        )
        self.attention = attention
        self.mamba = mamba
        self.mlp = FactorMLP(facts, read_factors(config, "mlp_multipliers", 2), placement)
        self.into_attention, self.into_mamba, self.from_attention, self.from_mamba = (
            _factor(read_number(config, name, 1.0))
            for name in (
                "attention_in_multiplier",
                "ssm_in_multiplier",
                "attention_out_multiplier",
                "ssm_out_multiplier",
            )
        )

    def forward(self, stream: Residual, batch: ModelInput) -> Residual:
        x_TE, normed_TE = self.mixer_norm.add(*stream)
        mamba_TE = normed_TE if self.into_mamba is None else self.into_mamba.forward(normed_TE)
        stream = self.mamba.onto(Residual(x_TE), mamba_TE, states_of(batch), self.from_mamba)
        attention_TE = normed_TE if self.into_attention is None else self.into_attention.forward(normed_TE)
        stream = self.attention.onto(
            Residual(stream.total()), attention_TE, batch.attend, self.from_attention
        )
        return self.mlp.forward(stream, self.mlp_norm)

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.mixer_norm.slots(f"{name}.input_layernorm"),
            *self.attention.slots(f"{name}.self_attn"),
            *self.mamba.slots(f"{name}.mamba"),
            *self.mlp_norm.slots(f"{name}.pre_ff_layernorm"),
            *self.mlp.slots(f"{name}.feed_forward"),
        ]


class FactorMLP(nn.Module):
    """x + b * down(silu(a * gate(norm(x))) * up(norm(x)))"""

    def __init__(self, facts: DecoderConfig, factors: Sequence[float], placement: Placement) -> None:
        super().__init__()
        width, inner, bias = facts.hidden_size, facts.intermediate_size, facts.mlp_bias
        self.inner = inner
        self.gate_up = Linear(width, [inner, inner], bias=bias, placement=placement)
        self.down = Linear(inner, [width], bias=bias, placement=placement)
        self.gate_factor = factors[0]
        self.down_factor = _factor(factors[1])
        self._gated_silu = gated_silu.on(placement.device)

    def forward(self, stream: Residual, norm: RMSNorm) -> Residual:
        stream, both_T2F = self.gate_up.from_stream(stream, norm)
        both_T2F[:, : self.inner] *= self.gate_factor
        return self.down.onto_stream(stream, self._gated_silu(both_T2F), self.down_factor)

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.gate_up.slots(f"{name}.gate_proj", f"{name}.up_proj"),
            *self.down.slots(f"{name}.down_proj"),
        ]


def _factor(value: float) -> Factor | None:
    return None if value == 1.0 else Factor(value)


def read_factors(config: Mapping[str, Any], name: str, count: int) -> list[float]:
    """Ones where the config says nothing. Raises ModelFileError."""
    values = config.get(name)
    if values is None:
        return [1.0] * count
    if not isinstance(values, list) or len(values) != count:
        stated = len(values) if isinstance(values, list) else str(values)[:40]
        raise ModelFileError(f"The model's config has {stated} {name}; it must be {count} numbers.")
    return [read_number({name: value}, name, 1.0) for value in values]
