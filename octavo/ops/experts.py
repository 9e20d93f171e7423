"""The experts of a mixture, each for the tokens that chose it. T tokens, E width, X experts, K of a token.

F is an expert's inner width. Its gate and up rows alternate (gate 0, up 0, gate 1, ...) in one matrix of
G = 2 F rows: a tile of it has all that the gate needs. A pair is one token and one of its experts, P = T K.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.by_rows import by_rows
from octavo.ops.contract import Op


@dataclass(frozen=True, kw_only=True)
class SwiGLU:
    """g * sigmoid(alpha * g) * (u + offset) for a gate g of at most `limit` and an up u of at most +-`limit`.

    As it stands: silu(g) * u. GPT-OSS has all three numbers.
    """

    alpha: float = 1.0
    limit: float = math.inf
    offset: float = 0.0

    def __call__(self, gate_up_PG: torch.Tensor) -> torch.Tensor:
        """[P, F]"""
        return self.of(gate_up_PG[:, ::2], gate_up_PG[:, 1::2])

    def of(self, gate_PF: torch.Tensor, up_PF: torch.Tensor) -> torch.Tensor:
        """The same of two halves."""
        if self.limit < math.inf:
            gate_PF, up_PF = gate_PF.clamp(max=self.limit), up_PF.clamp(-self.limit, self.limit)
        return gate_PF * by_rows(torch.sigmoid, self.alpha * gate_PF) * (up_PF + self.offset)


SILU = SwiGLU()


def _plain(
    x_TE: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    gate_up_XGE: torch.Tensor,
    down_XEF: torch.Tensor,
    gate_up_bias_XG: torch.Tensor | None = None,
    down_bias_XE: torch.Tensor | None = None,
    gate: SwiGLU = SILU,
    added_TE: torch.Tensor | None = None,
) -> torch.Tensor:
    """The sum over a token's experts of weight * down(gate(gate_up(x))), and `added` where given: [T, E].

    experts are int32, weights float32. A copy of an expert's matrices for each pair: for small examples.
    """
    experts_P = experts_TK.flatten().long()
    x_PE = x_TE.repeat_interleave(experts_TK.shape[1], 0)
    gate_up_PG = torch.einsum("pe,pge->pg", x_PE, gate_up_XGE[experts_P])
    if gate_up_bias_XG is not None:
        gate_up_PG = gate_up_PG + gate_up_bias_XG[experts_P]
    y_PE = torch.einsum("pf,pef->pe", gate(gate_up_PG), down_XEF[experts_P])
    if down_bias_XE is not None:
        y_PE = y_PE + down_bias_XE[experts_P]
    y_TE = weighted_sum(y_PE, weights_TK)
    return y_TE if added_TE is None else y_TE + added_TE


def weighted_sum(y_PE: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """[T, E]: expert after expert, so that the order does not depend on the number of tokens."""
    weighted_TKE = y_PE.view(*weights_TK.shape, y_PE.shape[1]) * weights_TK.to(y_PE.dtype)[:, :, None]
    first, *others = weighted_TKE.unbind(1)
    for other in others:
        first = first + other
    return first


def experts_by_group(
    x_TE: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    gate_up_XGE: torch.Tensor,
    down_XEF: torch.Tensor,
    gate_up_bias_XG: torch.Tensor | None = None,
    down_bias_XE: torch.Tensor | None = None,
    gate: SwiGLU = SILU,
    added_TE: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pairs sorted by expert, then one product for each expert in use, its matrix read where it lies.

    Waits for the device, if it is not the CPU: the host must know which experts are in use.
    """
    num_experts, num_chosen = len(gate_up_XGE), experts_TK.shape[1]
    experts_P = experts_TK.flatten()
    order_P = experts_P.argsort(stable=True)
    ends = list(accumulate(torch.bincount(experts_P, minlength=num_experts).tolist(), initial=0))
    in_use = [(expert, slice(*ends)) for expert, ends in enumerate(pairwise(ends)) if ends[0] < ends[1]]

    x_PE = x_TE.index_select(0, order_P // num_chosen)
    gate_up_PG = x_PE.new_empty(len(x_PE), gate_up_XGE.shape[1])
    for expert, rows in in_use:
        torch.mm(x_PE[rows], gate_up_XGE[expert].t(), out=gate_up_PG[rows])
        if gate_up_bias_XG is not None:
            gate_up_PG[rows] += gate_up_bias_XG[expert]
    inner_PF = gate(gate_up_PG)
    for expert, rows in in_use:
        torch.mm(
            inner_PF[rows], down_XEF[expert].t(), out=x_PE[rows]
        )  # as wide as x, which is not read again
        if down_bias_XE is not None:
            x_PE[rows] += down_bias_XE[expert]
    y_TE = weighted_sum(torch.empty_like(x_PE).index_copy_(0, order_P, x_PE), weights_TK)
    return y_TE if added_TE is None else y_TE.add_(added_TE)


def _examples() -> Iterator[tuple[Any, ...]]:
    """One token and many, experts without a token, every option alone and together."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def example(
        tokens: int, chosen: int, experts: int, width: int, inner: int, *more: Any
    ) -> tuple[Any, ...]:
        scores_TX = draw(tokens, experts)
        scores_TX[:, experts // 2] -= 100.0  # nobody's choice
        weights_TK, experts_TK = scores_TX.softmax(-1).topk(chosen)
        matrices = draw(experts, 2 * inner, width) / width**0.5, draw(experts, width, inner) / inner**0.5
        return draw(tokens, width), experts_TK.int(), weights_TK, *matrices, *more

    gpt_oss = SwiGLU(alpha=1.702, limit=1.5, offset=1.0)
    yield example(1, 2, 4, 64, 32)
    yield example(1, 8, 16, 48, 20, None, None, SILU, draw(1, 48))
    yield example(5, 2, 8, 40, 24, draw(8, 48), draw(8, 40), gpt_oss)
    yield example(16, 4, 6, 130, 70, None, draw(6, 130), SILU, draw(16, 130))
    yield example(40, 3, 8, 72, 36, draw(8, 72), draw(8, 72), gpt_oss, draw(40, 72))
    yield example(300, 2, 5, 32, 16)


experts = Op(
    name="experts",
    plain=_plain,
    providers=LazyTable(
        "experts provider",
        {"cpu": "octavo.ops.experts:experts_by_group", "cuda": "octavo.ops.triton.experts:experts"},
    ),
    examples=_examples,
    tolerance=1e-4,
)
experts_invariant = Op(
    name="experts_invariant",
    plain=_plain,
    providers=LazyTable(
        "experts_invariant provider",
        {"cpu": "octavo.ops.experts:experts_by_group", "cuda": "octavo.ops.triton.experts:experts_invariant"},
    ),
    examples=_examples,
    tolerance=1e-4,
)
"""A token's numbers are the same bits in any batch on a GPU, as those of matmul_invariant."""
