"""Warm-up: every kernel that steps will need is compiled before the first one, several at a time.

A kernel is compiled when it is first called with arguments of a kind, once per machine. So one step of each
kind is run: first for show, to learn what there is to compile, then for real. What they compute is thrown
away; no sequence is in the buffers, so nothing is written to the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch

from octavo.attention.step_view import HostView
from octavo.ops.triton.compile_ahead import KernelCompilers, record
from octavo.worker.forward import Forward
from octavo.worker.graph_sizes import mixed_sizes, shared_sizes
from octavo.worker.rows import TokenRows
from octavo.worker.sampling.placeholders import RowSampler
from octavo.worker.step_buffers import StepBounds

logger = logging.getLogger(__name__)

FEW_TOKENS = (1, 2, 4, 8)
"""Matrix-vector kernels differ by the number of tokens; the last is a matrix product already."""
MIXED_TOKENS = (64, 512)
"""Products of experts differ up to 16, 128 and 1024 tokens and beyond."""
FEW_CHUNKED = 64
"""A prompt of so many tokens, where a step holds them."""


def warm_up(
    logits: Callable[[torch.Tensor], torch.Tensor],
    forward: Forward,
    sampler: RowSampler,
    rows: TokenRows,
    compilers: KernelCompilers,
    *,
    width: int,
    dtype: torch.dtype,
    max_tokens: int,
) -> None:
    """Run one step of each kind that has kernels of its own. width: of hidden states."""
    max_seqs = len(rows.num_known)
    calls: list[Callable[[], object]] = [partial(sampler.warm_up, dtype, rows), rows.warm_up]
    hidden_TE = torch.zeros(FEW_TOKENS[-1], width, dtype=dtype, device=rows.device)
    calls += [partial(logits, hidden_TE[:size]) for size in FEW_TOKENS]
    calls += [partial(forward.run_bounded, bounds, None) for bounds in _bounds(max_seqs, max_tokens)]
    with torch.inference_mode():
        try:
            compilers.compile(record(calls))
        except Exception:
            # It leans on Triton's inner workings and only saves time: what is missing is compiled below.
            logger.warning("Kernels are compiled one after the other.", exc_info=True)
        for call in calls:
            call()
        # What other providers compile for themselves, in steps that are not captured.
        few = min(FEW_CHUNKED, max_tokens)
        bounds = _bounds_of(few, 1, has_chunks=True)._replace(num_singles=0)
        forward.run_bounded(bounds, _prompt(few, num_paged=1))
        if forward.long_prompt is not None and forward.long_prompt <= max_tokens:
            forward.run_bounded(_bounds_of(max_tokens, 1), _prompt(max_tokens, num_paged=0))
    torch.cuda.synchronize(rows.device)


def _bounds(max_seqs: int, max_tokens: int) -> list[StepBounds]:
    """Attention is split for few sequences and not for many; chunks are short or long."""
    singles = [size for size in (*FEW_TOKENS, 64) if size < max_seqs] + [max_seqs]
    shared, mixed = shared_sizes(max_seqs), mixed_sizes(max_tokens)
    return [
        *(_bounds_of(size, size) for size in singles),
        *(_bounds_of(size, size, shares_prefix=True) for size in {*shared[:1], *shared[-1:]}),
        *(_bounds_of(size, min(size, max_seqs), has_chunks=True) for size in {*mixed[:1], *mixed[-1:]}),
        *(_bounds_of(size, 1, has_chunks=True) for size in MIXED_TOKENS if size <= max_tokens),
        _bounds_of(max_tokens, 1, has_chunks=True),
    ]


def _bounds_of(
    num_tokens: int, num_seqs: int, *, has_chunks: bool = False, shares_prefix: bool = False
) -> StepBounds:
    return StepBounds(
        num_tokens=num_tokens,
        num_seqs=num_seqs,
        num_singles=num_seqs,
        has_chunks=has_chunks,
        shares_prefix=shares_prefix,
    )


def _prompt(num_tokens: int, *, num_paged: int) -> HostView:
    """A step of one prompt, by itself or through the pages."""
    return HostView(query_starts=[0, num_tokens], lengths=[num_tokens], num_paged=num_paged)
