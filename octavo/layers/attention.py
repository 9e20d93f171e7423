"""Self-attention with grouped heads: the one layer that calls an attention backend.

T tokens, E width, O = (H + 2 K) * D for H query heads and K KV heads of width D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from octavo.attention.contract import Attend, AttentionLayer
from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.norm import Norm, RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.ops.paged_plain import AttentionTerms


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    num_heads: int
    num_kv_heads: int
    head_dim: int
    is_gated: bool = False
    """What comes out is multiplied with sigmoid(gate), where the gate is a projection like the queries."""
    clip: float | None = None
    """Queries, keys and values are kept within so much of 0, behind their norms and before rotation."""


@dataclass(frozen=True, kw_only=True)
class HeadNorms:
    """How queries and keys are normalised before they are rotated."""

    epsilon: float
    offset: float = 0.0
    """Added to the checkpoint's weights."""
    is_whole: bool = False
    """All heads together (OLMo 2), not each by itself (Qwen3)."""


class Attention(Protocol):
    """The first branch of a decoder layer; an nn.Module."""

    def forward(
        self,
        stream: Residual,
        norm: RMSNorm | None,
        attend: Attend,
        post_norm: RMSNorm | Factor | None = None,
    ) -> Residual:
        """x + post_norm(attention(norm(x))), with each norm only where it is given."""

    def slots(self, name: str) -> list[WeightSlot]:
        """`name` is what the checkpoint calls it."""


class SelfAttention(nn.Module):
    """`index` is this layer's number among the model's attention layers."""

    def __init__(
        self,
        index: int,
        width: int,
        heads: HeadShape,
        *,
        has_qkv_bias: bool,
        has_out_bias: bool,
        terms: AttentionTerms | None = None,
        norms: HeadNorms | None = None,
        rotation_PD: torch.Tensor | None,
        placement: Placement,
    ) -> None:
        """terms None: scores are scaled by one over the root of the heads' width, and nothing more."""
        super().__init__()
        q, kv = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
        self.gate_columns = q if heads.is_gated else 0
        """Before the queries."""
        self.qkv = Linear(width, [self.gate_columns + q, kv, kv], bias=has_qkv_bias, placement=placement)
        self.out = Linear(q, [width], bias=has_out_bias, placement=placement)
        is_clipped_last = norms is None or norms.is_whole
        assert heads.clip is None or is_clipped_last, "norms of single heads are computed later"
        self.clip = heads.clip
        self.sinks_H = terms.sinks_H if terms is not None else None
        self.q_norm = self.k_norm = None
        is_whole = norms is not None and norms.is_whole
        if norms is not None:
            self.q_norm, self.k_norm = (
                RMSNorm(columns, epsilon=norms.epsilon, offset=norms.offset, placement=placement)
                for columns in ((q, kv) if is_whole else (heads.head_dim, heads.head_dim))
            )
        self.whole_norms: list[tuple[RMSNorm, int, int]] = []
        """Norms of columns [from, to) of the projections."""
        if self.q_norm is not None and self.k_norm is not None and is_whole:
            self.whole_norms = [(self.q_norm, 0, q), (self.k_norm, q, q + kv)]
        self.layer = AttentionLayer(
            index=index,
            num_heads=heads.num_heads,
            num_kv_heads=heads.num_kv_heads,
            head_dim=heads.head_dim,
            terms=terms or AttentionTerms(scale=heads.head_dim**-0.5),
            rotation_PD=rotation_PD,
            q_norm_D=None if self.q_norm is None or is_whole else self.q_norm.weight_E,
            k_norm_D=None if self.k_norm is None or is_whole else self.k_norm.weight_E,
            norm_epsilon=0.0 if norms is None else norms.epsilon,
        )

    def forward(
        self,
        stream: Residual,
        norm: Norm | None,
        attend: Attend,
        post_norm: Norm | Factor | None = None,
    ) -> Residual:
        """x + out(attention(qkv(norm(x)))); the branch may have a norm or a factor at its end too."""
        stream, qkv_TO = self.qkv.from_stream(stream, norm)
        return self.out.onto_stream(stream, self._attended(qkv_TO, attend), post_norm)

    def onto(
        self, stream: Residual, x_TE: torch.Tensor, attend: Attend, post_norm: Factor | None = None
    ) -> Residual:
        """stream + out(attention(qkv(x))): for layers whose branches do not start at the stream."""
        return self.out.onto_stream(stream, self._attended(self.qkv.forward(x_TE), attend), post_norm)

    def _attended(self, projected_TO: torch.Tensor, attend: Attend) -> torch.Tensor:
        if not self.gate_columns:
            return self._attended_ungated(projected_TO, attend)
        gate_TI, qkv_TO = projected_TO.tensor_split((self.gate_columns,), 1)
        return self._attended_ungated(qkv_TO.contiguous(), attend) * gate_TI.sigmoid()

    def _attended_ungated(self, qkv_TO: torch.Tensor, attend: Attend) -> torch.Tensor:
        for part_norm, start, end in self.whole_norms:
            part_TI = qkv_TO[:, start:end]
            part_TI.copy_(part_norm.forward(part_TI))
        if self.clip is not None:
            qkv_TO.clamp_(-self.clip, self.clip)
        return attend(self.layer, qkv_TO)

    def slots(self, name: str, qkv: Sequence[str] = ("q_proj", "k_proj", "v_proj")) -> list[WeightSlot]:
        """qkv: one name where the checkpoint holds all three as one matrix. q_proj holds gates too."""
        slots = [
            *self.qkv.slots(*(f"{name}.{part}" for part in qkv)),
            *self.out.slots(f"{name}.o_proj"),
        ]
        if self.sinks_H is not None:
            slots.append(WeightSlot(name=f"{name}.sinks", target=self.sinks_H))
        if self.q_norm is not None and self.k_norm is not None:
            slots += [*self.q_norm.slots(f"{name}.q_norm"), *self.k_norm.slots(f"{name}.k_norm")]
        return slots
