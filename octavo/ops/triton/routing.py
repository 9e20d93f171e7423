"""Which experts a token goes to, in two kernels: parts of the logits, then the choice.

A program of the first adds up PART columns of E for 16 tokens, so that even one token keeps several
processors busy; the second, one program a token, adds the parts in order. Neither depends on T: a token's
choice is the same in any batch. Limits on an H100, X = 128, E = 2048: at one token two launches and trips to
memory, about 4 us (the weight is 0.5 MB); at 2048 tokens 8 MB of parts written and read, about 10 us.

T tokens, E width, X experts, K chosen, P parts, G groups (one where there are none), M experts of a group.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.routing import TINY, Groups, Routing, Scoring
from octavo.ops.triton.pdl import pdl_options

BLOCK_T = 16
"""Rows of the smallest matrix instruction."""
PART = 256
NO_GROUPS = Groups(count=1, num_chosen=1, num_best=1)


@triton.jit(do_not_specialize=["tokens"])
def _logits_kernel(  # noqa: PLR0913
    x_ptr,
    weight_ptr,
    logits_ptr,  # float32 [P, T, X]
    tokens,
    WIDTH: tl.constexpr,
    EXPERTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PART: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    token_T = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    part = tl.program_id(1)
    expert_X = tl.arange(0, BLOCK_X)
    wanted_T1 = (token_T < tokens)[:, None]
    wanted_1X = (expert_X < EXPERTS)[None, :]
    logits_TX = tl.zeros([BLOCK_T, BLOCK_X], tl.float32)
    for start in tl.static_range(0, PART, BLOCK_E):
        column_E = part * PART + start + tl.arange(0, BLOCK_E)
        inside_E = column_E < WIDTH
        x_TE = tl.load(
            x_ptr + token_T[:, None].to(tl.int64) * WIDTH + column_E[None, :],
            mask=wanted_T1 & inside_E[None, :],
            other=0.0,
        )
        weight_EX = tl.load(
            weight_ptr + expert_X[None, :] * WIDTH + column_E[:, None],
            mask=wanted_1X & inside_E[:, None],
            other=0.0,
        )
        logits_TX = tl.dot(x_TE, weight_EX, logits_TX, input_precision="ieee")
    row_T1 = (part * tokens + token_T).to(tl.int64)[:, None]
    tl.store(logits_ptr + row_T1 * EXPERTS + expert_X[None, :], logits_TX, mask=wanted_T1 & wanted_1X)


@triton.jit
def _scores(logits_GM, inside_GM, IS_SIGMOID: tl.constexpr):
    if IS_SIGMOID:
        return tl.sigmoid(logits_GM)
    logits_GM = tl.where(inside_GM, logits_GM, -float("inf"))
    powers_GM = tl.exp(logits_GM - tl.max(tl.max(logits_GM, axis=1), axis=0))
    return powers_GM / tl.sum(tl.sum(powers_GM, axis=1), axis=0)


@triton.jit
def _is_kept(choice_GM, GROUPS: tl.constexpr, CHOSEN_GROUPS: tl.constexpr, BEST: tl.constexpr):
    """[G]: whether a group is among the best, by the sum of its BEST best. Of equals the first."""
    BLOCK_G: tl.constexpr = choice_GM.shape[0]
    group_G = tl.arange(0, BLOCK_G)
    m_1M = tl.arange(0, choice_GM.shape[1])[None, :]
    total_G = tl.zeros([BLOCK_G], tl.float32)
    for _ in tl.static_range(BEST):
        best_G = tl.max(choice_GM, axis=1)
        total_G += best_G
        place_G = tl.argmax(choice_GM, axis=1)
        choice_GM = tl.where(m_1M == place_G[:, None], -float("inf"), choice_GM)
    total_G = tl.where(group_G < GROUPS, total_G, -float("inf"))
    kept_G = tl.zeros([BLOCK_G], tl.int32)
    for _ in tl.static_range(CHOSEN_GROUPS):
        best = tl.argmax(total_G, axis=0)
        kept_G = tl.where(group_G == best, 1, kept_G)
        total_G = tl.where(group_G == best, -float("inf"), total_G)
    return kept_G > 0


@triton.jit(do_not_specialize=["tokens"])
def _choose_kernel(  # noqa: PLR0913
    logits_ptr,
    bias_ptr,  # or None, as the next
    choice_bias_ptr,
    experts_ptr,
    weights_ptr,
    tokens,
    EXPERTS: tl.constexpr,
    PARTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    IS_SIGMOID: tl.constexpr,
    IS_NORMED: tl.constexpr,
    FACTOR: tl.constexpr,
    TINY: tl.constexpr,
    GROUPS: tl.constexpr,
    CHOSEN_GROUPS: tl.constexpr,
    BEST: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    GROUP_SIZE: tl.constexpr = EXPERTS // GROUPS
    token = tl.program_id(0)
    g_G1 = tl.arange(0, BLOCK_G)[:, None]
    m_1M = tl.arange(0, BLOCK_M)[None, :]
    expert_GM = g_G1 * GROUP_SIZE + m_1M
    inside_GM = (g_G1 < GROUPS) & (m_1M < GROUP_SIZE)

    logits_GM = tl.zeros([BLOCK_G, BLOCK_M], tl.float32)
    for part in tl.static_range(PARTS):
        row = (part * tokens + token).to(tl.int64)
        logits_GM += tl.load(logits_ptr + row * EXPERTS + expert_GM, mask=inside_GM, other=0.0)
    if bias_ptr is not None:
        logits_GM += tl.load(bias_ptr + expert_GM, mask=inside_GM, other=0.0).to(tl.float32)
    scores_GM = _scores(logits_GM, inside_GM, IS_SIGMOID)
    choice_GM = scores_GM
    if choice_bias_ptr is not None:
        choice_GM += tl.load(choice_bias_ptr + expert_GM, mask=inside_GM, other=0.0).to(tl.float32)
    choice_GM = tl.where(inside_GM, choice_GM, -float("inf"))
    if GROUPS > 1:
        kept_G = _is_kept(choice_GM, GROUPS, CHOSEN_GROUPS, BEST)
        choice_GM = tl.where(kept_G[:, None], choice_GM, -float("inf"))

    k_K = tl.arange(0, BLOCK_K)
    chosen_K = tl.zeros([BLOCK_K], tl.int32)
    weights_K = tl.zeros([BLOCK_K], tl.float32)
    for k in tl.static_range(CHOSEN):
        best = tl.max(tl.max(choice_GM, axis=1), axis=0)
        first_G = tl.min(tl.where(choice_GM == best, expert_GM, EXPERTS), axis=1)
        # Logits that are not numbers equal nothing; the token is lost, but may not name a strange expert.
        expert = tl.minimum(tl.min(first_G, axis=0), EXPERTS - 1)
        is_it_GM = (expert_GM == expert) & inside_GM
        weight = tl.sum(tl.sum(tl.where(is_it_GM, scores_GM, 0.0), axis=1), axis=0)
        chosen_K = tl.where(k_K == k, expert, chosen_K)
        weights_K = tl.where(k_K == k, weight, weights_K)
        choice_GM = tl.where(is_it_GM, -float("inf"), choice_GM)
    if IS_NORMED:
        weights_K /= tl.sum(weights_K, axis=0) + TINY
    places_K = token * CHOSEN + k_K
    tl.store(experts_ptr + places_K, chosen_K, mask=k_K < CHOSEN)
    tl.store(weights_ptr + places_K, weights_K * FACTOR, mask=k_K < CHOSEN)


def route(
    x_TE: torch.Tensor,
    weight_XE: torch.Tensor,
    bias_X: torch.Tensor | None,
    choice_bias_X: torch.Tensor | None,
    routing: Routing,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `octavo.ops.routing` says."""
    tokens, (num_experts, width) = len(x_TE), weight_XE.shape
    experts_TK = torch.empty((tokens, routing.num_chosen), dtype=torch.int32, device=x_TE.device)
    weights_TK = torch.empty((tokens, routing.num_chosen), dtype=torch.float32, device=x_TE.device)
    if tokens == 0:
        return experts_TK, weights_TK
    num_parts = triton.cdiv(width, PART)
    logits_PTX = torch.empty((num_parts, tokens, num_experts), dtype=torch.float32, device=x_TE.device)
    pdl = pdl_options(x_TE.device)
    _logits_kernel[(triton.cdiv(tokens, BLOCK_T), num_parts)](
        x_TE.contiguous(),
        weight_XE,
        logits_PTX,
        tokens,
        WIDTH=width,
        EXPERTS=num_experts,
        BLOCK_T=BLOCK_T,
        BLOCK_X=max(triton.next_power_of_2(num_experts), 16),
        BLOCK_E=64 if x_TE.element_size() == 2 else 32,
        PART=PART,
        num_warps=4,
        num_stages=3,
        **pdl,
    )
    groups = routing.groups or NO_GROUPS
    _choose_kernel[(tokens,)](
        logits_PTX,
        bias_X,
        choice_bias_X,
        experts_TK,
        weights_TK,
        tokens,
        EXPERTS=num_experts,
        PARTS=num_parts,
        CHOSEN=routing.num_chosen,
        IS_SIGMOID=routing.scoring is Scoring.SIGMOID,
        IS_NORMED=routing.is_normed,
        FACTOR=routing.factor,
        TINY=TINY,
        GROUPS=groups.count,
        CHOSEN_GROUPS=groups.num_chosen,
        BEST=groups.num_best,
        BLOCK_G=triton.next_power_of_2(groups.count),
        BLOCK_M=triton.next_power_of_2(num_experts // groups.count),
        BLOCK_K=triton.next_power_of_2(routing.num_chosen),
        num_warps=1,
        **pdl,
    )
    return experts_TK, weights_TK
