"""The gated delta rule: a state that forgets, and is told only what it does not say already; kept by row.

Yang, Kautz and Hatamizadeh, "Gated Delta Networks" (2024). T tokens, H heads with values of width V, G groups
of heads that share queries and keys of width K, I = H * V, J = G * K, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from octavo.base.table import LazyTable
from octavo.ops.by_rows import by_rows
from octavo.ops.contract import Op
from octavo.ops.step_rows import StepRows, example_rows

CHUNK = 64
"""Tokens that the matrix form on a CPU takes at once."""
TINY = 1e-6
"""Added to the squared length of a query or key before it is brought to length one."""


class DeltaWeights(NamedTuple):
    """What is learnt of the rule itself, float32 [H]."""

    log_decay_H: torch.Tensor
    """A state decays by exp(-exp(log_decay) * softplus(a + bias)) from token to token."""
    bias_H: torch.Tensor

    def decay(self, a_TH: torch.Tensor) -> torch.Tensor:
        """Its logarithm [T, H]."""
        return -self.log_decay_H.exp() * by_rows(functional.softplus, a_TH.float() + self.bias_H)


def _plain(
    q_TJ: torch.Tensor,
    k_TJ: torch.Tensor,
    v_TI: torch.Tensor,
    b_TH: torch.Tensor,
    a_TH: torch.Tensor,
    weights: DeltaWeights,
    states_RHVK: torch.Tensor,
    step: StepRows,
    is_by_token: bool,  # noqa: ARG001
) -> torch.Tensor:
    """state = decay * state; state += sigmoid(b) * (v - state k) k^T; y = state q, in float32: [T, I].

    Keys have length one, queries one over the root of K. Else as in ops/ssd.py: a sequence begins with its
    row's state (zeros before its first token) and leaves its last one there; tokens past the step's
    sequences give anything; is_by_token asks for sums in the order of this form.
    """
    y_TI = torch.zeros_like(v_TI)
    heads, width, size = states_RHVK.shape[1:]
    q_THK, k_THK = _unit(q_TJ, heads, size) * size**-0.5, _unit(k_TJ, heads, size)
    v_THV = v_TI.float().reshape(-1, heads, width)
    beta_TH, decay_TH = b_TH.float().sigmoid(), weights.decay(a_TH).exp()
    for row, start, end, is_fresh in step.on_host():
        state_HVK = torch.zeros_like(states_RHVK[row]) if is_fresh else states_RHVK[row].clone()
        for t in range(start, end):
            state_HVK = decay_TH[t, :, None, None] * state_HVK
            said_HV = (state_HVK * k_THK[t, :, None]).sum(-1)
            told_HV = beta_TH[t, :, None] * (v_THV[t] - said_HV)
            state_HVK = state_HVK + told_HV[..., None] * k_THK[t, :, None]
            y_TI[t] = (state_HVK * q_THK[t, :, None]).sum(-1).flatten()
        states_RHVK[row] = state_HVK
    return y_TI


def unit_lengths(values_TJ: torch.Tensor, size: int) -> torch.Tensor:
    """[T, G, K], float32, each of length one."""
    values_TGK = values_TJ.float().reshape(len(values_TJ), -1, size)
    return values_TGK * torch.rsqrt(values_TGK.square().sum(-1, keepdim=True) + TINY)


def _unit(values_TJ: torch.Tensor, heads: int, size: int) -> torch.Tensor:
    """[T, H, K]: the same for each head."""
    values_TGK = unit_lengths(values_TJ, size)
    return values_TGK.repeat_interleave(heads // values_TGK.shape[1], 1)


def gated_delta_cpu(
    q_TJ: torch.Tensor,
    k_TJ: torch.Tensor,
    v_TI: torch.Tensor,
    b_TH: torch.Tensor,
    a_TH: torch.Tensor,
    weights: DeltaWeights,
    states_RHVK: torch.Tensor,
    step: StepRows,
    is_by_token: bool,  # noqa: ARG001
) -> torch.Tensor:
    """Sequences of one token all at once, longer ones in matrix form, CHUNK tokens at a time."""
    heads, width, size = states_RHVK.shape[1:]
    q_THK, k_THK = _unit(q_TJ, heads, size) * size**-0.5, _unit(k_TJ, heads, size)
    v_THV = v_TI.float().reshape(-1, heads, width)
    beta_TH, decay_TH = b_TH.float().sigmoid(), weights.decay(a_TH)
    y_THV = torch.zeros_like(v_THV)
    rows_S, is_fresh_S = step.singles_on_host()
    count = len(rows_S)
    if count:
        states_SHVK = states_RHVK[rows_S].masked_fill_(is_fresh_S[:, None, None, None], 0.0)
        states_SHVK.mul_(decay_TH[:count].exp()[..., None, None])
        said_SHV = (states_SHVK @ k_THK[:count, ..., None])[..., 0]
        told_SHV = beta_TH[:count, :, None] * (v_THV[:count] - said_SHV)
        states_SHVK.add_(told_SHV[..., None] * k_THK[:count, :, None])
        y_THV[:count] = (states_SHVK @ q_THK[:count, ..., None])[..., 0]
        states_RHVK[rows_S] = states_SHVK
    for row, start, end, is_fresh in step.on_host(count):
        state_HVK = torch.zeros_like(states_RHVK[row]) if is_fresh else states_RHVK[row]
        for first in range(start, end, CHUNK):
            at = slice(first, min(first + CHUNK, end))
            y_THV[at], state_HVK = _chunk(
                q_THK[at], k_THK[at], v_THV[at], beta_TH[at], decay_TH[at], state_HVK
            )
        states_RHVK[row] = state_HVK
    return y_THV.flatten(1).to(v_TI.dtype)


def _chunk(
    q_QHK: torch.Tensor,
    k_QHK: torch.Tensor,
    v_QHV: torch.Tensor,
    beta_QH: torch.Tensor,
    decay_QH: torch.Tensor,
    state_HVK: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(y, the state behind). What each token tells the state is a triangular system. Q tokens.

    told_i = beta_i * (v_i - decayed state k_i - sum over j < i of decay between * (k_i . k_j) * told_j)
    """
    sum_HQ = decay_QH.t().cumsum(1)
    q_HQK, k_HQK, v_HQV = (values.transpose(0, 1) for values in (q_QHK, k_QHK, v_QHV))
    is_later_QQ = torch.ones(len(q_QHK), len(q_QHK), dtype=torch.bool).triu(1)
    between_HQQ = (sum_HQ[:, :, None] - sum_HQ[:, None]).masked_fill_(is_later_QQ, -torch.inf).exp_()
    beta_HQ1, since_HQ1 = beta_QH.t()[..., None], sum_HQ.exp()[..., None]
    system_HQQ = beta_HQ1 * (k_HQK @ k_HQK.transpose(1, 2)) * between_HQQ
    wanted_HQV = beta_HQ1 * (v_HQV - since_HQ1 * (k_HQK @ state_HVK.transpose(1, 2)))
    told_HQV = torch.linalg.solve_triangular(system_HQQ, wanted_HQV, upper=False, unitriangular=True)
    y_HQV = since_HQ1 * (q_HQK @ state_HVK.transpose(1, 2))
    y_HQV += ((q_HQK @ k_HQK.transpose(1, 2)) * between_HQQ) @ told_HQV
    to_end_HQ1 = (sum_HQ[:, -1:] - sum_HQ).exp()[..., None]
    added_HVK = told_HQV.transpose(1, 2) @ (to_end_HQ1 * k_HQK)
    return y_HQV.transpose(0, 1), state_HVK * sum_HQ[:, -1].exp()[:, None, None] + added_HVK


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    for heads, width, groups, size, step in (
        (2, 16, 1, 16, example_rows((2, 0, 1), (0, 7, 1))),
        (4, 20, 2, 24, example_rows((1, 3, 70), (3, 0, 2))),
        (3, 8, 1, 40, example_rows((3, 1, 1), (0, 0, 1), (4, 5, 2), (2, 0, 33), (1, 2, 64))),
    ):
        num_tokens = int(step.starts_S1[step.num_seqs - 2])
        inner, columns = heads * width, groups * size
        all_TC = draw(num_tokens, inner + 2 * columns + 5)
        q_TJ, k_TJ, v_TI, _ = torch.split(all_TC, [columns, columns, inner, 5], 1)
        b_TH, a_TH = draw(num_tokens, 2 * heads).chunk(2, 1)
        weights = DeltaWeights(draw(heads) * 0.5, draw(heads))
        yield q_TJ, k_TJ, v_TI, b_TH, a_TH, weights, draw(6, heads, width, size), step, False


gated_delta = Op(
    name="gated_delta",
    plain=_plain,
    providers=LazyTable(
        "gated_delta provider",
        {
            "cpu": "octavo.ops.gated_delta:gated_delta_cpu",
            "cuda": "octavo.ops.triton.gated_delta:gated_delta",
        },
    ),
    examples=_examples,
    tolerance=1e-4,
    writes=(6,),
    float32_arguments=(6,),
)
