"""What the GPU's backend plans for every step that may come: forms that serve it, and room for all splits."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from octavo.attention.backends.triton import TritonAttention, TritonPlan
from octavo.attention.contract import PageLayout, StepLimits
from octavo.attention.step_view import HostView, StepView
from octavo.ops.triton.paged_decode_workspace import SHARED_ROWS, rows_per_seq, shared_splits
from octavo.worker.graph_sizes import mixed_sizes, shared_sizes, single_sizes

GROUP = 4
NO_INTS = torch.zeros(8, dtype=torch.int32)


def backend(max_seqs: int, num_kv_heads: int, window: int | None = None) -> TritonAttention:
    layout = PageLayout(
        block_size=16,
        rows_per_page=32,
        num_kv_heads=num_kv_heads,
        head_dim=8,
        window=window,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
        is_head_major=True,
    )
    limits = StepLimits(
        max_seqs=max_seqs,
        max_tokens=2048,
        num_heads=GROUP * num_kv_heads,
        deterministic=False,
        chunk_attention="triton",
    )
    return TritonAttention(layout, limits)


def view(
    num_tokens: int,
    num_singles: int,
    *,
    has_chunks: bool = False,
    shares_prefix: bool = False,
    host: HostView | None = None,
) -> StepView:
    """Captured, unless the host's part is given."""
    return StepView(
        host=host,
        num_tokens=num_tokens,
        num_seqs=num_singles,
        num_singles=num_singles,
        has_chunks=has_chunks,
        shares_prefix=shares_prefix,
        counts=NO_INTS,
        rows_S=NO_INTS,
        starts_S1=NO_INTS,
        lengths_S=NO_INTS,
        positions_T=NO_INTS,
        slots_T=NO_INTS,
        table_RM=NO_INTS[None],
    )


def check_room(made: TritonAttention, plan: TritonPlan) -> None:
    """Raises EngineError, as the kernels' launch would."""
    heads, seqs = made.layout.num_kv_heads, plan.view.num_singles
    shared = 0
    if plan.shares_prefix:
        shared = shared_splits(seqs, heads, SHARED_ROWS // rows_per_seq(GROUP * heads, heads), made.num_sms)
    made.workspace.check(seqs * heads, shared + plan.num_splits)


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 8, 32])
@pytest.mark.parametrize("max_seqs", [1, 8, 16, 64, 200, 1024])
def test_every_captured_step_has_room_for_its_splits(
    max_seqs: int, num_kv_heads: int, window: int | None
) -> None:
    made = backend(max_seqs, num_kv_heads, window)
    views = [view(size, size) for size in single_sizes(max_seqs)]
    views += [view(size, size, shares_prefix=True) for size in shared_sizes(max_seqs)]
    views += [view(size, min(size, max_seqs), has_chunks=True) for size in mixed_sizes(2048)]
    for step in views:
        check_room(made, made.plan(step))


@pytest.mark.parametrize("num_kv_heads", [1, 8])
def test_every_eager_step_has_room_for_its_splits(num_kv_heads: int) -> None:
    made = backend(64, num_kv_heads)
    for num_singles in range(1, 65):
        host = HostView(
            query_starts=list(range(num_singles + 1)), lengths=[5] * num_singles, num_paged=num_singles
        )
        check_room(made, made.plan(view(num_singles, num_singles, host=host)))


def test_a_window_may_hide_what_is_shared() -> None:
    step = view(16, 16, shares_prefix=True)
    assert backend(16, 2).plan(step).shares_prefix
    assert not backend(16, 2, window=100).plan(step).shares_prefix
