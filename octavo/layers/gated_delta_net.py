"""Gated DeltaNet: a recurrence by the gated delta rule in the place of attention.

T tokens, E width, H heads with values of width V, G groups of heads that share queries and keys of width K,
I = H * V inner values, J = G * K, C = 2 J + I convolved columns, W taps, O = I + C + 2 H projected columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.recurrent import RecurrentMixer, RecurrentStep
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import StatePart, StateSpec
from octavo.ops.causal_conv import causal_conv
from octavo.ops.cpu.recurrent import NativeRecurrences
from octavo.ops.gated_delta import DeltaWeights, gated_delta
from octavo.ops.gated_norm import gated_rms_norm


@dataclass(frozen=True, kw_only=True)
class DeltaShape:
    num_heads: int
    value_dim: int
    num_groups: int
    key_dim: int
    num_taps: int

    @property
    def inner(self) -> int:
        return self.num_heads * self.value_dim

    @property
    def columns(self) -> int:
        """Of all queries, and of all keys."""
        return self.num_groups * self.key_dim

    @property
    def convolved(self) -> int:
        return 2 * self.columns + self.inner


class GatedDeltaNet(RecurrentMixer):
    """`index` is this layer's number among the model's recurrent layers."""

    def __init__(
        self, index: int, width: int, shape: DeltaShape, *, epsilon: float, placement: Placement
    ) -> None:
        super().__init__()
        self.index = index
        self.shape = shape
        self.epsilon = epsilon
        self._is_by_token = placement.deterministic
        self._dtype_bytes = placement.dtype.itemsize
        both = 2 * shape.num_heads
        self.in_proj = Linear(width, [shape.inner + shape.convolved, both], placement=placement)
        self.out_proj = Linear(shape.inner, [width], placement=placement)
        self.conv_weight_CW = _parameter(placement.empty(shape.convolved, shape.num_taps))
        self.norm_weight_V = _parameter(placement.empty(shape.value_dim))
        # Small and sensitive: kept in float32 whatever the model computes in.
        self.log_decay_H, self.bias_H = (
            _parameter(placement.empty(shape.num_heads).float()) for _ in range(2)
        )
        self._weights = DeltaWeights(self.log_decay_H, self.bias_H)
        self._causal_conv = causal_conv.on(placement.device)
        native = placement.native
        self._gated_delta = (
            gated_delta.on(placement.device) if native is None else NativeRecurrences(native).gated_delta
        )
        self._gated_rms_norm = gated_rms_norm.on(placement.device)

    def forward(
        self,
        stream: Residual,
        norm: Norm | None,
        recur: RecurrentStep,
        post_norm: Norm | Factor | None = None,
    ) -> Residual:
        stream, projected_TO = self.in_proj.from_stream(stream, norm)
        return self.out_proj.onto_stream(stream, self._mixed(projected_TO, recur), post_norm)

    def _mixed(self, projected_TO: torch.Tensor, recur: RecurrentStep) -> torch.Tensor:
        """[T, I], gated"""
        shape, step = self.shape, recur.rows
        window_RKC, state_RHVK = recur.states[self.index]
        heads = shape.num_heads
        gate_TI, convolved_TC, b_TH, a_TH = torch.split(
            projected_TO, [shape.inner, shape.convolved, heads, heads], 1
        )
        convolved_TC = self._causal_conv(convolved_TC, self.conv_weight_CW, None, window_RKC, step)
        q_TJ, k_TJ, v_TI = torch.split(convolved_TC, [shape.columns, shape.columns, shape.inner], 1)
        y_TI = self._gated_delta(
            q_TJ, k_TJ, v_TI, b_TH, a_TH, self._weights, state_RHVK, step, self._is_by_token
        )
        # Each head is normalised by itself, all with the same weights.
        rows = (-1, shape.value_dim)
        normed = self._gated_rms_norm(
            y_TI.view(rows), gate_TI.reshape(rows), self.norm_weight_V, self.epsilon, 1, False
        )
        return normed.view(len(y_TI), shape.inner)

    def state_spec(self) -> StateSpec:
        shape = self.shape
        return StateSpec(
            parts=[
                StatePart(shape=[shape.num_taps - 1, shape.convolved], dtype_bytes=self._dtype_bytes),
                StatePart(shape=[shape.num_heads, shape.value_dim, shape.key_dim], dtype_bytes=4),
            ]
        )

    def slots(self, name: str) -> list[WeightSlot]:
        """in_proj_qkvz and in_proj_ba come group by group in the checkpoint; here by kind, the gate first."""
        qkvz, ba = self.in_proj.slots(f"{name}.in_proj_qkvz", f"{name}.in_proj_ba")
        shape = self.shape
        values = shape.inner // shape.num_groups
        sizes = [shape.key_dim, shape.key_dim, values, values]
        rows = torch.arange(len(qkvz.target)).view(shape.num_groups, -1)
        queries, keys, inner, gates = torch.split(rows, sizes, 1)
        by_kind = torch.cat([part.flatten() for part in (gates, queries, keys, inner)])
        pairs = torch.arange(len(ba.target)).view(shape.num_groups, 2, -1)
        return [
            replace(qkvz, order_R=by_kind),
            replace(ba, order_R=pairs.transpose(0, 1).flatten()),
            WeightSlot(name=f"{name}.conv1d.weight", target=self.conv_weight_CW[:, None]),
            WeightSlot(name=f"{name}.A_log", target=self.log_decay_H),
            WeightSlot(name=f"{name}.dt_bias", target=self.bias_H),
            WeightSlot(name=f"{name}.norm.weight", target=self.norm_weight_V),
            *self.out_proj.slots(f"{name}.out_proj"),
        ]


def _parameter(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
