"""State space duality: Mamba-2's recurrence, each row's state kept between steps.

Dao and Gu, "Transformers are SSMs" (2024). T tokens, H heads of width P, G groups of heads that share B
and C, N numbers of state per value of a head, I = H * P, J = G * N, R rows.
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


class SSDWeights(NamedTuple):
    """What is learnt of the recurrence itself, all float32 [H]."""

    log_decay_H: torch.Tensor
    """A state decays by exp(-exp(log_decay) * dt) from token to token."""
    skip_H: torch.Tensor
    dt_bias_H: torch.Tensor
    dt_limits: tuple[float, float]
    """Between which dt is kept."""

    def steps(self, dt_TH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(dt, the logarithm of the decay), both [T, H] in float32."""
        dt_TH = by_rows(functional.softplus, dt_TH.float() + self.dt_bias_H).clamp(*self.dt_limits)
        return dt_TH, -self.log_decay_H.exp() * dt_TH


def _plain(
    x_TI: torch.Tensor,
    b_TJ: torch.Tensor,
    c_TJ: torch.Tensor,
    dt_TH: torch.Tensor,
    weights: SSDWeights,
    states_RHPN: torch.Tensor,
    step: StepRows,
    is_by_token: bool,  # noqa: ARG001
) -> torch.Tensor:
    """state = decay * state + dt * x B^T; y = state C + skip * x, token by token in float32: [T, I].

    A sequence begins with its row's state (zeros before its first token) and leaves its last one there.
    Tokens past the step's sequences give anything. is_by_token: sums must be in the order of this form, so
    that they do not depend on how a prompt is cut (see Placement.deterministic).
    """
    y_TI = torch.zeros_like(x_TI)
    heads, width, size = states_RHPN.shape[1:]
    dt_TH, decay_TH = weights.steps(dt_TH)
    x_THP = x_TI.float().reshape(-1, heads, width)
    b_THN, c_THN = (_by_head(_by_group(values, size), heads) for values in (b_TJ, c_TJ))
    for row, start, end, is_fresh in step.on_host():
        state_HPN = torch.zeros_like(states_RHPN[row]) if is_fresh else states_RHPN[row].clone()
        for t in range(start, end):
            added_HPN = (dt_TH[t, :, None] * x_THP[t])[..., None] * b_THN[t, :, None]
            state_HPN = decay_TH[t].exp()[:, None, None] * state_HPN + added_HPN
            y_HP = (state_HPN * c_THN[t, :, None]).sum(-1) + weights.skip_H[:, None] * x_THP[t]
            y_TI[t] = y_HP.flatten()
        states_RHPN[row] = state_HPN
    return y_TI


def _by_group(values_TJ: torch.Tensor, size: int) -> torch.Tensor:
    """[T, G, N], float32"""
    return values_TJ.float().reshape(len(values_TJ), -1, size)


def _by_head(values_TGN: torch.Tensor, heads: int) -> torch.Tensor:
    """[T, H, N]"""
    return values_TGN.repeat_interleave(heads // values_TGN.shape[1], 1)


def ssd_cpu(
    x_TI: torch.Tensor,
    b_TJ: torch.Tensor,
    c_TJ: torch.Tensor,
    dt_TH: torch.Tensor,
    weights: SSDWeights,
    states_RHPN: torch.Tensor,
    step: StepRows,
    is_by_token: bool,  # noqa: ARG001
) -> torch.Tensor:
    """Sequences of one token all at once, longer ones in the paper's matrix form, CHUNK tokens at a time."""
    heads, width, size = states_RHPN.shape[1:]
    dt_TH, decay_TH = weights.steps(dt_TH)
    x_THP = x_TI.float().reshape(-1, heads, width)
    b_TGN, c_TGN = _by_group(b_TJ, size), _by_group(c_TJ, size)
    y_THP = weights.skip_H[:, None] * x_THP
    rows_S, is_fresh_S = step.singles_on_host()
    count = len(rows_S)
    if count:
        states_SHPN = states_RHPN[rows_S].masked_fill_(is_fresh_S[:, None, None, None], 0.0)
        states_SHPN.mul_(decay_TH[:count].exp()[..., None, None])
        b_SHN, c_SHN = _by_head(b_TGN[:count], heads), _by_head(c_TGN[:count], heads)
        states_SHPN.add_((dt_TH[:count, :, None] * x_THP[:count])[..., None] * b_SHN[:, :, None])
        y_THP[:count].add_((states_SHPN @ c_SHN[..., None])[..., 0])
        states_RHPN[rows_S] = states_SHPN
    for row, start, end, is_fresh in step.on_host(count):
        state_HPN = torch.zeros_like(states_RHPN[row]) if is_fresh else states_RHPN[row]
        for first in range(start, end, CHUNK):
            at = slice(first, min(first + CHUNK, end))
            y_QHP, state_HPN = _chunk(x_THP[at], b_TGN[at], c_TGN[at], dt_TH[at], decay_TH[at], state_HPN)
            y_THP[at] += y_QHP
        states_RHPN[row] = state_HPN
    return y_THP.flatten(1).to(x_TI.dtype)


def _chunk(
    x_QHP: torch.Tensor,
    b_QGN: torch.Tensor,
    c_QGN: torch.Tensor,
    dt_QH: torch.Tensor,
    decay_QH: torch.Tensor,
    state_HPN: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(y without the skip, the state behind): within the chunk as masked attention, from before by the state.

    Section 6 of the paper. Q tokens. Products with B and C are of all heads of a group at once.
    """
    num_tokens, heads, width = x_QHP.shape
    groups, size = b_QGN.shape[1:]
    sum_HQ = decay_QH.t().cumsum(1)
    x_HQP = (dt_QH[..., None] * x_QHP).transpose(0, 1)
    b_GQN, c_GQN = b_QGN.transpose(0, 1), c_QGN.transpose(0, 1)
    is_later_QQ = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
    between_HQQ = (sum_HQ[:, :, None] - sum_HQ[:, None]).masked_fill_(is_later_QQ, -torch.inf).exp_()
    scores_GQQ = c_GQN @ b_GQN.transpose(1, 2)
    between_HQQ.view(groups, -1, num_tokens, num_tokens).mul_(scores_GQQ[:, None])
    y_HQP = between_HQQ @ x_HQP
    from_state = c_GQN @ state_HPN.reshape(groups, -1, size).transpose(1, 2)
    from_state_QHP = from_state.transpose(0, 1).reshape(num_tokens, heads, width)
    y_QHP = torch.addcmul(y_HQP.transpose(0, 1), from_state_QHP, sum_HQ.t().exp()[..., None])
    to_end_HQ = (sum_HQ[:, -1:] - sum_HQ).exp()
    told_HPQ = (x_HQP * to_end_HQ[..., None]).transpose(1, 2)
    added_HPN = (told_HPQ.reshape(groups, -1, num_tokens) @ b_GQN).view(heads, width, size)
    return y_QHP, torch.addcmul(added_HPN, state_HPN, sum_HQ[:, -1].exp()[:, None, None])


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    for heads, width, groups, size, step in (
        (2, 16, 1, 16, example_rows((2, 0, 1), (0, 7, 1))),
        (4, 20, 2, 24, example_rows((1, 3, 90), (3, 0, 2))),
        (3, 8, 1, 40, example_rows((3, 1, 1), (0, 0, 1), (4, 5, 2), (2, 0, 129), (1, 2, 64))),
    ):
        num_tokens = int(step.starts_S1[step.num_seqs - 2])
        inner, columns = heads * width, groups * size
        all_TC = draw(num_tokens, inner + 2 * columns + 5)
        x_TI, b_TJ, c_TJ, _ = torch.split(all_TC, [inner, columns, columns, 5], 1)
        weights = SSDWeights(draw(heads) * 0.5, draw(heads), draw(heads), (0.01, 2.0))
        states_RHPN = draw(6, heads, width, size)
        yield x_TI, b_TJ, c_TJ, draw(num_tokens, heads), weights, states_RHPN, step, False


ssd = Op(
    name="ssd",
    plain=_plain,
    providers=LazyTable(
        "ssd provider", {"cpu": "octavo.ops.ssd:ssd_cpu", "cuda": "octavo.ops.triton.ssd:ssd"}
    ),
    examples=_examples,
    tolerance=1e-4,
    writes=(5,),
    float32_arguments=(5,),
)
