"""Native heads and attention: every instruction set here against the plain forms, odd sizes too."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from octavo.attention.backends.native import NativeAttention
from octavo.attention.contract import AttentionLayer, PageLayout, Pages, StepLimits
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
    has_slopes: bool = False
    rounds_biases: bool = False


CASES = {
    "default model": Case(9, 3, 64, 16, rotated=64),
    "one head each": Case(3, 3, 24, 16, has_norms=True),
    "many share": Case(14, 1, 20, 8, rotated=8),
    "window": Case(4, 2, 32, 16, rotated=32, window=21),
    "window of one": Case(2, 1, 16, 4, window=1),
    "soft cap": Case(8, 2, 8, 1, soft_cap=3.0),
    "wide": Case(4, 1, 256, 32, rotated=256, has_norms=True, window=40),
    "odd heads": Case(6, 2, 21, 16, rotated=20),
    "one number a head": Case(2, 1, 1, 8),
    "linear biases": Case(7, 7, 24, 16, has_slopes=True),
    "linear biases, a window": Case(6, 2, 20, 8, window=21, has_slopes=True),
    "linear biases in bfloat16": Case(4, 1, 12, 16, has_slopes=True, rounds_biases=True),
}
CHUNKS = [(40, 1), (77, 1), (0, 1), (16, 30), (0, 90), (130, 7)]
"""Sequences: tokens before this step, tokens of this step."""


DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]
TOLERANCES = {torch.float32: 1.3e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3, torch.int8: 1e-2}
"""Norm and rotation differ from the plain forms' in last bits, so a number may be rounded the other way."""


class Kept(NamedTuple):
    """Pages of one layer, and how to see through them what they mean."""

    pages: Pages
    key_scales_BKN: torch.Tensor | None
    value_scales_BKN: torch.Tensor | None

    def keys(self) -> torch.Tensor:
        """float32 [B, K, N, D], as `values`."""
        return meant(self.pages.keys_BKND, self.key_scales_BKN)

    def values(self) -> torch.Tensor:
        return meant(self.pages.values_BKND, self.value_scales_BKN)


def meant(numbers_BKND: torch.Tensor, scales_BKN: torch.Tensor | None) -> torch.Tensor:
    exact = numbers_BKND.float()
    return exact.clone() if scales_BKN is None else exact * scales_BKN[..., None]


def rounded(x_THD: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The plain form of writing: numbers, and the scales of 8-bit ones [T, H]."""
    if dtype is not torch.int8:
        return x_THD.to(dtype), None
    most_TH1 = x_THD.abs().amax(-1, keepdim=True)
    factor_TH1 = torch.where(most_TH1 > 0, 127.0 / most_TH1, 0.0)
    scales_TH = (most_TH1 / 127.0)[..., 0] + (x_THD * 0.0).sum(-1)  # NaN if one is not finite
    return (x_THD * factor_TH1).round().to(torch.int8), scales_TH


def layout_of(case: Case, dtype: torch.dtype) -> PageLayout:
    return PageLayout(
        block_size=case.block_size,
        rows_per_page=2 * case.block_size,
        num_kv_heads=case.num_kv_heads,
        head_dim=case.head_dim,
        window=case.window,
        dtype=dtype,
        device=CPU,
        is_head_major=True,
        turns_keys=True,
        scale_bytes=4 if dtype is torch.int8 else 0,
    )


def empty_pages(layout: PageLayout, num_blocks: int) -> Kept:
    """Full of what is not a number."""
    width = layout.head_dim + layout.scale_bytes // layout.dtype.itemsize
    shape = (num_blocks * layout.rows_per_page, layout.num_kv_heads * width)
    rows_RC = torch.empty(shape, dtype=layout.dtype)
    rows_RC.view(torch.uint8).fill_(0xFF)
    pages = layout.pages(rows_RC)
    if not layout.scale_bytes:
        return Kept(pages, None, None)
    page, head = pages.keys_BKND.stride()[:2]
    size = layout.block_size
    scales = [
        rows_RC.view(-1)
        .as_strided(
            (num_blocks, layout.num_kv_heads, 4 * size), (page, head, 1), start + layout.head_dim * size
        )
        .view(torch.float32)
        for start in (0, page // 2)
    ]
    return Kept(pages, *scales)


def write(kept: Kept, block: int, offset: int, key_KD: torch.Tensor, value_KD: torch.Tensor) -> None:
    for x_KD, numbers_BKND, scales_BKN in (
        (key_KD, kept.pages.keys_BKND, kept.key_scales_BKN),
        (value_KD, kept.pages.values_BKND, kept.value_scales_BKN),
    ):
        numbers_KD, scales_K = rounded(x_KD, numbers_BKND.dtype)
        numbers_BKND[block, :, offset] = numbers_KD
        if scales_BKN is not None and scales_K is not None:
            scales_BKN[block, :, offset] = scales_K


def attention_layer(case: Case, draw: Callable[..., torch.Tensor]) -> AttentionLayer:
    return AttentionLayer(
        index=0,
        num_heads=case.num_heads,
        num_kv_heads=case.num_kv_heads,
        head_dim=case.head_dim,
        terms=AttentionTerms(
            scale=case.head_dim**-0.5,
            window=case.window,
            soft_cap=case.soft_cap,
            slopes_H=draw(case.num_heads).abs().bfloat16().float() if case.has_slopes else None,
            rounds_biases=case.rounds_biases,
        ),
        rotation_PD=draw(300, case.rotated) if case.rotated else None,
        q_norm_D=draw(case.head_dim) if case.has_norms else None,
        k_norm_D=draw(case.head_dim) if case.has_norms else None,
        norm_epsilon=1e-6,
    )


def run(
    kernels: str, layout: PageLayout, view: StepView, layer: AttentionLayer, qkv_TO: torch.Tensor, kept: Kept
) -> torch.Tensor:
    limits = StepLimits(
        max_seqs=8,
        max_tokens=256,
        num_heads=layer.num_heads,
        deterministic=False,
        chunk_attention="triton",
        native=engine(kernels),
    )
    return NativeAttention(layout, limits).plan(view).run(layer, qkv_TO, kept.pages)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("name", CASES)
def test_a_step_equals_the_plain_forms(kernels: str, dtype: torch.dtype, name: str) -> None:
    case, generator = CASES[name], torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    layout = layout_of(case, dtype)
    view, tables_SM = step_view(case, generator)
    kept = empty_pages(layout, int(tables_SM.max()) + 1)
    heads = (case.num_kv_heads, case.head_dim)
    for row, (before, _) in enumerate(CHUNKS):
        for position in range(before):
            block, offset = int(tables_SM[row, position // case.block_size]), position % case.block_size
            write(kept, block, offset, draw(*heads), draw(*heads))
    layer = attention_layer(case, draw)
    qkv_TO = draw(view.num_tokens, (case.num_heads + 2 * case.num_kv_heads) * case.head_dim)
    plain_qkv_TO, plain_keys, plain_values = qkv_TO.clone(), kept.keys(), kept.values()
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
    actual = run(kernels, layout, view, layer, qkv_TO, kept)
    tolerance = TOLERANCES[dtype]
    most = float(plain_keys.nan_to_num().abs().max())
    torch.testing.assert_close(kept.keys(), plain_keys, rtol=tolerance, atol=tolerance * most, equal_nan=True)
    torch.testing.assert_close(
        kept.values(), plain_values, rtol=tolerance, atol=tolerance * 4, equal_nan=True
    )
    # What it read is what it wrote, this step's own keys and values too.
    q_THD = plain_qkv_TO.view(view.num_tokens, -1, case.head_dim)[:, : case.num_heads]
    assert view.host is not None
    expected = paged_attention(
        q_THD,
        kept.keys(),
        kept.values(),
        tables_SM,
        view.starts_S1.tolist(),
        view.host.lengths,
        layer.terms,
    )
    torch.testing.assert_close(actual, expected.flatten(1), rtol=1e-4, atol=2e-5)


UNUSUAL = [0.0, -0.0, 1e-8, -6e-8, 6.2e-5, 1.00048828125, 1.00146484375, 1.005, 1.01171875, 65504.0]
UNUSUAL += [65519.9, 65520.0, -1e9, 3e38, float("inf"), float("-inf"), float("nan"), -float("nan")]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_numbers_are_rounded_as_torch_rounds_them(kernels: str, dtype: torch.dtype) -> None:
    case = Case(1, 1, 22, 16)
    layout, generator = layout_of(case, dtype), torch.Generator().manual_seed(2)
    view, tables_SM = step_view(case, generator)
    kept = empty_pages(layout, int(tables_SM.max()) + 1)
    qkv_TO = torch.randn(view.num_tokens, 66, generator=generator) * 10.0 ** torch.randint(
        -6, 5, (view.num_tokens, 1), generator=generator
    )
    odd = torch.tensor(UNUSUAL)
    qkv_TO[3, 22 : 22 + len(odd)] = odd
    qkv_TO[4, 44 : 44 + len(odd)] = odd
    qkv_TO[5, 22:44], qkv_TO[5, 50] = 0.0, torch.inf
    wanted_TO = qkv_TO.clone()
    run(kernels, layout, view, attention_layer(case, torch.randn), qkv_TO, kept)
    blocks_T, offsets_T = view.slots_T.long() // 16, view.slots_T.long() % 16
    for start, found_BKND in ((22, kept.keys()), (44, kept.values())):
        numbers_TD, scales_T = rounded(wanted_TO[:, start : start + 22], dtype)
        wanted_TD = meant(numbers_TD, scales_T)
        torch.testing.assert_close(
            found_BKND[blocks_T, 0, offsets_T], wanted_TD, rtol=0, atol=0, equal_nan=True
        )


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


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("window", [None, 3])
def test_tokens_that_do_not_see_a_broken_value_are_not_broken(
    kernels: str, dtype: torch.dtype, window: int | None
) -> None:
    """Tokens of a sequence that are computed together read it together; its weight is 0 for some of them."""
    case = Case(2, 1, 24, 16, window=window)
    layout, generator = layout_of(case, dtype), torch.Generator().manual_seed(3)
    view, tables_SM = step_view(case, generator)
    num_values = 4 * case.head_dim
    qkv_TO = torch.randn(view.num_tokens, num_values, generator=generator)
    start, broken = 3 + 30, 3 + 30 + 45  # of the sequence without tokens before, and a token within
    results = []
    for value in (1.0, torch.inf):
        own_TO = qkv_TO.clone()
        own_TO[broken, -1] = value
        kept = empty_pages(layout, int(tables_SM.max()) + 1)
        kept.pages.keys_BKND.zero_(), kept.pages.values_BKND.zero_()
        for scales in (kept.key_scales_BKN, kept.value_scales_BKN):
            if scales is not None:
                scales.zero_()
        results.append(run(kernels, layout, view, attention_layer(case, torch.randn), own_TO, kept))
    seeing = slice(broken, broken + (window or 45))
    fine, hurt = results
    assert not hurt[seeing].isfinite().all(-1).any()
    assert torch.equal(hurt[start:broken], fine[start:broken])
    assert torch.equal(hurt[seeing.stop : start + 90], fine[seeing.stop : start + 90])
