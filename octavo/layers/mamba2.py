"""The Mamba-2 mixer: a recurrence in the place of attention (or beside it), its state in the request's row.

T tokens, E width, H heads of width P, G groups that share B and C, N numbers of state per value,
I = H * P inner values, C = I + 2 G N convolved columns, W taps, O = I + C + H projected columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.recurrent import RecurrentMixer, RecurrentStep
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import StatePart, StateSpec
from octavo.ops.by_rows import by_rows
from octavo.ops.causal_conv import causal_conv
from octavo.ops.cpu.recurrent import NativeRecurrences
from octavo.ops.gated_norm import gated_rms_norm
from octavo.ops.ssd import SSDWeights, ssd


@dataclass(frozen=True, kw_only=True)
class Mamba2Shape:
    num_heads: int
    head_dim: int
    num_groups: int
    state_size: int
    num_taps: int
    dt_limits: tuple[float, float] = (0.0, float("inf"))

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def columns(self) -> int:
        """Of B in all groups, and of C."""
        return self.num_groups * self.state_size

    @property
    def convolved(self) -> int:
        return self.inner + 2 * self.columns

    @property
    def parts(self) -> list[int]:
        """Columns of the projection: gate, x, B, C, dt."""
        return [self.inner, self.inner, self.columns, self.columns, self.num_heads]


@dataclass(frozen=True, kw_only=True)
class GatedNorm:
    """How the result is normalised, each group by itself."""

    epsilon: float
    gates_first: bool = True
    """The gate is multiplied in before the norm, not behind it."""


class Mamba2(RecurrentMixer):
    """`index` is this layer's number among the model's recurrent layers."""

    def __init__(
        self,
        index: int,
        width: int,
        shape: Mamba2Shape,
        *,
        has_bias: bool,
        has_out_bias: bool,
        has_conv_bias: bool,
        norm: GatedNorm | None,
        part_factors: Sequence[float] = (1.0,) * 5,
        placement: Placement,
    ) -> None:
        """norm None: the result is gated and not normalised. part_factors: for gate, x, B, C and dt."""
        super().__init__()
        self.index = index
        self.shape = shape
        self.norm = norm
        self._is_by_token = placement.deterministic
        self._dtype_bytes = placement.dtype.itemsize
        self.in_proj = Linear(width, [sum(shape.parts)], bias=has_bias, placement=placement)
        self.out_proj = Linear(shape.inner, [width], bias=has_out_bias, placement=placement)
        self.conv_weight_CW = _parameter(placement.empty(shape.convolved, shape.num_taps))
        self.conv_bias_C = _parameter(placement.empty(shape.convolved)) if has_conv_bias else None
        self.norm_weight_I = None if norm is None else _parameter(placement.empty(shape.inner))
        # Small and sensitive: kept in float32 whatever the model computes in.
        self.log_decay_H, self.skip_H, self.dt_bias_H = (
            _parameter(placement.empty(shape.num_heads).float()) for _ in range(3)
        )
        self._weights = SSDWeights(self.log_decay_H, self.skip_H, self.dt_bias_H, shape.dt_limits)
        self._factors_O = None
        if any(factor != 1.0 for factor in part_factors):
            columns = [torch.full((n,), f) for n, f in zip(shape.parts, part_factors, strict=True)]
            self._factors_O = torch.cat(columns).to(device=placement.device, dtype=placement.dtype)
        self._causal_conv = causal_conv.on(placement.device)
        native = placement.native
        self._ssd = ssd.on(placement.device) if native is None else NativeRecurrences(native).ssd
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

    def onto(
        self, stream: Residual, x_TE: torch.Tensor, recur: RecurrentStep, post_norm: Factor | None = None
    ) -> Residual:
        """stream + mixer(x): for layers whose branches do not start at the stream."""
        mixed_TI = self._mixed(self.in_proj.forward(x_TE), recur)
        return self.out_proj.onto_stream(stream, mixed_TI, post_norm)

    def _mixed(self, projected_TO: torch.Tensor, recur: RecurrentStep) -> torch.Tensor:
        """[T, I], gated"""
        shape, step = self.shape, recur.rows
        if self._factors_O is not None:
            projected_TO = projected_TO * self._factors_O
        window_RKC, state_RHPN = recur.states[self.index]
        gate_TI, convolved_TC, dt_TH = torch.split(
            projected_TO, [shape.inner, shape.convolved, shape.num_heads], 1
        )
        convolved_TC = self._causal_conv(
            convolved_TC, self.conv_weight_CW, self.conv_bias_C, window_RKC, step
        )
        x_TI, b_TJ, c_TJ = torch.split(convolved_TC, [shape.inner, shape.columns, shape.columns], 1)
        y_TI = self._ssd(x_TI, b_TJ, c_TJ, dt_TH, self._weights, state_RHPN, step, self._is_by_token)
        if self.norm is None or self.norm_weight_I is None:
            return by_rows(functional.silu, gate_TI) * y_TI
        return self._gated_rms_norm(
            y_TI,
            gate_TI,
            self.norm_weight_I,
            self.norm.epsilon,
            shape.num_groups,
            self.norm.gates_first,
        )

    def state_spec(self) -> StateSpec:
        shape = self.shape
        return StateSpec(
            parts=[
                StatePart(shape=[shape.num_taps - 1, shape.convolved], dtype_bytes=self._dtype_bytes),
                StatePart(shape=[shape.num_heads, shape.head_dim, shape.state_size], dtype_bytes=4),
            ]
        )

    def slots(self, name: str) -> list[WeightSlot]:
        slots = [
            *self.in_proj.slots(f"{name}.in_proj"),
            WeightSlot(name=f"{name}.conv1d.weight", target=self.conv_weight_CW[:, None]),
            WeightSlot(name=f"{name}.A_log", target=self.log_decay_H),
            WeightSlot(name=f"{name}.D", target=self.skip_H),
            WeightSlot(name=f"{name}.dt_bias", target=self.dt_bias_H),
            *self.out_proj.slots(f"{name}.out_proj"),
        ]
        if self.conv_bias_C is not None:
            slots.append(WeightSlot(name=f"{name}.conv1d.bias", target=self.conv_bias_C))
        if self.norm_weight_I is not None:
            slots.append(WeightSlot(name=f"{name}.norm.weight", target=self.norm_weight_I))
        return slots


def _parameter(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
