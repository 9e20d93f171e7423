"""Recurrences in the native kernels, token by token: what ops/ssd.py and ops/gated_delta.py say.

T tokens, H heads of width P (or V), G groups of heads, N (or K) numbers of state per value, I = H * P,
J = G * N, R rows.
"""

from __future__ import annotations

import torch

from octavo.ops.by_rows import by_rows
from octavo.ops.cpu.engine import NativeEngine
from octavo.ops.cpu.structs import RecurrenceStruct
from octavo.ops.gated_delta import DeltaWeights, unit_lengths
from octavo.ops.ssd import SSDWeights
from octavo.ops.step import SEQUENCES
from octavo.ops.step_rows import StepRows


class NativeRecurrences:
    """Of one engine."""

    def __init__(self, native: NativeEngine) -> None:
        self._native = native

    def ssd(
        self,
        x_TI: torch.Tensor,
        b_TJ: torch.Tensor,
        c_TJ: torch.Tensor,
        dt_TH: torch.Tensor,
        weights: SSDWeights,
        states_RHPN: torch.Tensor,
        step: StepRows,
        is_by_token: bool,  # noqa: ARG002
    ) -> torch.Tensor:
        """ops/ssd.py"""
        dt_TH, decay_TH = weights.steps(dt_TH)
        dt_TH, decay_TH = dt_TH.contiguous(), by_rows(torch.exp, decay_TH).contiguous()
        y_TI = torch.zeros(x_TI.shape)
        groups = b_TJ.shape[1] // states_RHPN.shape[3]
        self._native.ssd(
            recurrence_struct(states_RHPN, groups, step),
            *(x_TI, b_TJ, c_TJ),
            *(dt_TH, decay_TH, weights.skip_H),
            y_TI,
        )
        return y_TI

    def gated_delta(
        self,
        q_TJ: torch.Tensor,
        k_TJ: torch.Tensor,
        v_TI: torch.Tensor,
        b_TH: torch.Tensor,
        a_TH: torch.Tensor,
        weights: DeltaWeights,
        states_RHVK: torch.Tensor,
        step: StepRows,
        is_by_token: bool,  # noqa: ARG002
    ) -> torch.Tensor:
        """ops/gated_delta.py"""
        size = states_RHVK.shape[3]
        q_TGK, k_TGK = unit_lengths(q_TJ, size) * size**-0.5, unit_lengths(k_TJ, size)
        beta_TH = by_rows(torch.sigmoid, b_TH).contiguous()
        decay_TH = by_rows(torch.exp, weights.decay(a_TH)).contiguous()
        y_TI = torch.zeros(v_TI.shape)
        self._native.gated_delta(
            recurrence_struct(states_RHVK, q_TGK.shape[1], step), q_TGK, k_TGK, v_TI, beta_TH, decay_TH, y_TI
        )
        return y_TI


def recurrence_struct(states: torch.Tensor, groups: int, step: StepRows) -> RecurrenceStruct:
    """The tensors must outlive it."""
    assert states.is_contiguous() and states.dtype == torch.float32, "states are kept so"
    heads, width, size = states.shape[1:]
    return RecurrenceStruct(
        rows=step.rows_S.data_ptr(),
        starts=step.starts_S1.data_ptr(),
        lengths=step.lengths_S.data_ptr(),
        num_seqs=int(step.counts[SEQUENCES]),
        states=states.data_ptr(),
        heads=heads,
        width=width,
        size=size,
        groups=groups,
    )
