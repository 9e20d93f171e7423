"""Native heads and attention: every instruction set here against the plain forms, odd sizes too."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from octavo.attention.backends.native import NativeAttention
from octavo.attention.contract import AttentionLayer, PageLayout, StepLimits
from octavo.attention.step_view import HostView, StepView
from octavo.base.native import native_kernels
from octavo.ops.heads import prepare_heads
from octavo.ops.paged_plain import AttentionTerms, paged_attention
from tests.ops.test_native_products import KERNELS, engine

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")

CPU = torch.device("cpu")


class Case(NamedTuple):
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    rotated: int = 0
    has_norms: bool = False
    window: int | None = None
    soft_cap: float | None = None


CASES = {
    "default model": Case(9, 3, 64, 16, rotated=64),
    "one head each": Case(3, 3, 24, 16, has_norms=True),
    "many share": Case(14, 1, 20, 8, rotated=8),
    "window": Case(4, 2, 32, 16, rotated=32, window=21),
    "window of one": Case(2, 1, 16, 4, window=1),
    "soft cap": Case(8, 2, 8, 1, soft_cap=3.0),
    "wide": Case(4, 1, 256, 32, rotated=256, has_norms=True, window=40),
}
CHUNKS = [(40, 1), (77, 1), (0, 1), (16, 30), (0, 90), (130, 7)]
"""Sequences: tokens before this step, tokens of this step."""


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_equals_the_plain_forms(kernels: str, name: str) -> None:
    native, case = engine(kernels), CASES[name]
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    layout = PageLayout(
        block_size=case.block_size,
        rows_per_page=2 * case.block_size,
        num_kv_heads=case.num_kv_heads,
        head_dim=case.head_dim,
        window=case.window,
        dtype=torch.float32,
        device=CPU,
        is_head_major=True,
        turns_keys=True,
    )
    view, tables_SM = step_view(case, generator)
    num_blocks = int(tables_SM.max()) + 1
    pages = layout.pages(
        torch.full((num_blocks * 2 * case.block_size, case.num_kv_heads * case.head_dim), torch.nan)
    )
    lengths = view.host.lengths if view.host else []
    for row, (before, _) in enumerate(CHUNKS):
        for position in range(before):
            block, offset = int(tables_SM[row, position // case.block_size]), position % case.block_size
            pages.keys_BKND[block, :, offset] = draw(case.num_kv_heads, case.head_dim)
            pages.values_BKND[block, :, offset] = draw(case.num_kv_heads, case.head_dim)
    layer = AttentionLayer(
        index=0,
        num_heads=case.num_heads,
        num_kv_heads=case.num_kv_heads,
        head_dim=case.head_dim,
        terms=AttentionTerms(scale=case.head_dim**-0.5, window=case.window, soft_cap=case.soft_cap),
        rotation_PD=draw(300, case.rotated) if case.rotated else None,
        q_norm_D=draw(case.head_dim) if case.has_norms else None,
        k_norm_D=draw(case.head_dim) if case.has_norms else None,
        norm_epsilon=1e-6,
    )
    qkv_TO = draw(view.num_tokens, (case.num_heads + 2 * case.num_kv_heads) * case.head_dim)
    plain_qkv_TO, plain_keys, plain_values = (
        qkv_TO.clone(),
        pages.keys_BKND.clone(),
        pages.values_BKND.clone(),
    )
    prepare_heads.plain(
        plain_qkv_TO,
        view.positions_T,
        view.slots_T,
        layer.rotation_PD,
        layer.q_norm_D,
        layer.k_norm_D,
        layer.norm_epsilon,
        plain_keys,
        plain_values,
        case.num_heads,
    )
    q_THD = plain_qkv_TO.view(view.num_tokens, -1, case.head_dim)[:, : case.num_heads]
    expected = paged_attention(
        q_THD, plain_keys, plain_values, tables_SM, view.starts_S1.tolist(), lengths, layer.terms
    )
    limits = StepLimits(
        max_seqs=8,
        max_tokens=256,
        num_heads=case.num_heads,
        deterministic=False,
        chunk_attention="triton",
        native=native,
    )
    actual = NativeAttention(layout, limits).plan(view).run(layer, qkv_TO, pages)
    torch.testing.assert_close(actual, expected.flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pages.keys_BKND, plain_keys, equal_nan=True)
    torch.testing.assert_close(pages.values_BKND, plain_values, equal_nan=True)


def step_view(case: Case, generator: torch.Generator) -> tuple[StepView, torch.Tensor]:
    """The CHUNKS in shuffled blocks."""
    counts = [-(-(before + count) // case.block_size) for before, count in CHUNKS]
    blocks = torch.randperm(sum(counts), generator=generator).int()
    tables_SM = torch.zeros(len(CHUNKS), max(counts), dtype=torch.int32)
    for row, part in enumerate(blocks.split(counts)):
        tables_SM[row, : len(part)] = part
    starts = [0]
    positions, slots = [], []
    for row, (before, count) in enumerate(CHUNKS):
        starts.append(starts[-1] + count)
        for position in range(before, before + count):
            positions.append(position)
            block = int(tables_SM[row, position // case.block_size])
            slots.append(block * case.block_size + position % case.block_size)
    lengths = [before + count for before, count in CHUNKS]
    view = StepView(
        host=HostView(query_starts=starts, lengths=lengths, num_paged=len(CHUNKS)),
        num_tokens=starts[-1],
        num_seqs=len(CHUNKS),
        num_singles=3,
        has_chunks=True,
        shares_prefix=False,
        counts=torch.zeros(5, dtype=torch.int32),
        rows_S=torch.arange(len(CHUNKS), dtype=torch.int32),
        starts_S1=torch.tensor(starts, dtype=torch.int32),
        lengths_S=torch.tensor(lengths, dtype=torch.int32),
        positions_T=torch.tensor(positions, dtype=torch.int32),
        slots_T=torch.tensor(slots, dtype=torch.int32),
        table_RM=tables_SM,
    )
    return view, tables_SM
