"""Chunks over paged KV, interpreted, against plain attention in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language

from octavo.ops.paged_plain import AttentionTerms, paged_attention  # noqa: E402
from octavo.ops.triton.paged_chunks import (  # noqa: E402
    ChunkTile,
    choose_tile,
    find_sequence,
    paged_chunks,
)

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="interpreted; tests/gpu has the native tests"
)

SMALL = ChunkTile(rows=16, keys=16, warps=4, stages=2)


@dataclass
class Case:
    """A step over pages that are NaN wherever no token was written."""

    q_THD: torch.Tensor
    keys_BKND: torch.Tensor
    values_BKND: torch.Tensor
    table_RM: torch.Tensor
    rows_S: torch.Tensor
    starts: list[int]
    lengths: list[int]
    num_singles: int

    def run(self, terms: AttentionTerms, *, singles_too: bool = False, tile: ChunkTile | None = SMALL):
        out_THD = torch.full_like(self.q_THD, 77.0)
        num_seqs, num_tokens = len(self.lengths), self.starts[-1]
        # Upper bounds are generous, and behind the step's own entries stands what must not be touched.
        paged_chunks(
            self.q_THD,
            self.keys_BKND,
            self.values_BKND,
            self.table_RM,
            torch.cat((self.rows_S, torch.full((2,), 1 << 30))).int(),
            torch.tensor([*self.starts, 1 << 30, 0], dtype=torch.int32),
            torch.tensor([*self.lengths, 1 << 30, 1 << 30], dtype=torch.int32),
            torch.tensor([self.num_singles, num_seqs, num_tokens], dtype=torch.int32),
            out_THD,
            terms,
            max_tokens=num_tokens + 5,
            max_seqs=num_seqs + 1,
            singles_too=singles_too,
            tile=tile,
        )
        return out_THD

    def expected(self, terms: AttentionTerms) -> torch.Tensor:
        tables_SM = self.table_RM[self.rows_S.long()]
        pages = (self.keys_BKND.float(), self.values_BKND.float())
        return paged_attention(self.q_THD.float(), *pages, tables_SM, self.starts, self.lengths, terms)


def make_case(
    counts: list[tuple[int, int]],
    *,
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 16,
    block_size: int = 4,
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
) -> Case:
    """counts: (query tokens, tokens before them) of each sequence, those with one query token first."""
    generator = torch.Generator().manual_seed(len(counts))
    num_heads, num_kv_heads = heads
    lengths = [queries + past for queries, past in counts]
    starts = [0]
    for queries, _ in counts:
        starts.append(starts[-1] + queries)
    widest = max(-(-length // block_size) for length in lengths) + 2
    num_blocks = len(counts) * widest + 1
    pages = torch.full((num_blocks, 2, num_kv_heads, block_size, head_dim), math.nan, dtype=dtype)
    ids = (torch.randperm(num_blocks - 1, generator=generator) + 1).view(len(counts), widest)
    rows_S = torch.randperm(len(counts), generator=generator) + 1
    table_RM = torch.full((len(counts) + 2, widest + 3), 1 << 30, dtype=torch.int32)[:, :widest]
    for i, (length, (_, past)) in enumerate(zip(lengths, counts, strict=True)):
        seen_from = 0 if window is None else max(0, past - window + 1)
        table_RM[rows_S[i], : -(-length // block_size)] = 0
        for position in range(seen_from, length):
            block = ids[i, position // block_size]
            table_RM[rows_S[i], position // block_size] = block
            pages[block, :, :, position % block_size] = torch.randn(
                2, num_kv_heads, head_dim, generator=generator
            ).to(dtype)
    fused = torch.randn(starts[-1], num_heads + 2, head_dim, generator=generator).to(dtype) * 2
    return Case(
        q_THD=fused[:, 1:-1],
        keys_BKND=pages[:, 0],
        values_BKND=pages[:, 1],
        table_RM=table_RM,
        rows_S=rows_S,
        starts=starts,
        lengths=lengths,
        num_singles=sum(queries == 1 for queries, _ in counts),
    )


SLOPES_H = torch.tensor([0.5, 0.25, 0.0625, 0.703125])


MIXED = [(1, 6), (1, 0), (9, 0), (3, 22), (17, 5)]


@pytest.mark.parametrize(
    ("heads", "head_dim", "block_size"),
    [((4, 2), 16, 4), ((3, 1), 16, 1), ((2, 2), 24, 16), ((5, 1), 20, 8)],
)
def test_equals_plain_attention(heads: tuple[int, int], head_dim: int, block_size: int) -> None:
    case = make_case(MIXED, heads=heads, head_dim=head_dim, block_size=block_size)
    terms = AttentionTerms(scale=0.25)
    out_THD = case.run(terms)
    torch.testing.assert_close(out_THD[2:], case.expected(terms)[2:], atol=1e-5, rtol=1e-5)
    assert (out_THD[:2] == 77.0).all(), "sequences of one token are not ours"


def test_serves_single_tokens_where_asked() -> None:
    case = make_case(MIXED)
    terms = AttentionTerms(scale=0.25)
    out_THD = case.run(terms, singles_too=True)
    torch.testing.assert_close(out_THD, case.expected(terms), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 5, 16, 19])
def test_a_window_hides_what_lies_before_it(window: int) -> None:
    """What lies before every window is the null block, and that holds NaN."""
    case = make_case([(30, 0), (4, 37)], window=window)
    assert case.table_RM[case.rows_S[1], 0] == 0
    terms = AttentionTerms(scale=0.25, window=window)
    case.keys_BKND[0] = case.values_BKND[0] = math.nan
    torch.testing.assert_close(case.run(terms), case.expected(terms), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "terms",
    [
        AttentionTerms(scale=0.25, soft_cap=3.0),
        AttentionTerms(scale=0.25, sinks_H=torch.tensor([-1.0, 0.0, 2.0, 9.0])),
        AttentionTerms(scale=0.25, window=7, soft_cap=0.5, sinks_H=torch.tensor([1.0, -3.0, 0.5, 4.0])),
        AttentionTerms(scale=0.25, slopes_H=SLOPES_H),
        AttentionTerms(scale=0.3, slopes_H=SLOPES_H, rounds_biases=True),
        AttentionTerms(scale=0.25, window=7, soft_cap=0.5, slopes_H=SLOPES_H),
    ],
)
def test_soft_caps_sinks_and_linear_biases(terms: AttentionTerms) -> None:
    case = make_case([(6, 0), (7, 20)])
    torch.testing.assert_close(case.run(terms), case.expected(terms), atol=1e-5, rtol=1e-5)


def test_positions_that_bfloat16_has_not() -> None:
    """Over 256 neighbours share a bias, where biases are rounded."""
    case = make_case([(2, 300)], block_size=16)
    terms = AttentionTerms(scale=0.3, slopes_H=SLOPES_H / 64, rounds_biases=True)
    torch.testing.assert_close(case.run(terms), case.expected(terms), atol=1e-5, rtol=1e-5)


def test_half_precision_with_its_own_tile() -> None:
    case = make_case([(20, 60)], heads=(2, 1), dtype=torch.float16, block_size=16)
    terms = AttentionTerms(scale=0.25)
    out_THD = case.run(terms, tile=None)
    torch.testing.assert_close(out_THD.float(), case.expected(terms), atol=4e-3, rtol=4e-3)


def test_nothing_to_do() -> None:
    case = make_case([(1, 3), (1, 5)])
    assert (case.run(AttentionTerms(scale=0.25)) == 77.0).all()


@pytest.mark.parametrize("window", [None, 18])
def test_same_bits_however_a_prompt_is_cut(window: int | None) -> None:
    """A token's result does not depend on its chunk or its neighbours, to the last bit."""
    whole = make_case([(29, 0)], heads=(2, 1))
    terms = AttentionTerms(scale=0.25, window=window)
    expected_THD = whole.run(terms, singles_too=True)
    for cut in ([1], [7, 20], [28]):
        ends = [*cut, 29]
        spans = sorted(zip([0, *cut], ends, strict=True), key=lambda span: span[1] - span[0] > 1)
        # All pieces side by side in one step: the pages already hold the whole prompt.
        starts = [0]
        for begin, end in spans:
            starts.append(starts[-1] + end - begin)
        cut_case = Case(
            q_THD=torch.cat([whole.q_THD[begin:end] for begin, end in spans]),
            keys_BKND=whole.keys_BKND,
            values_BKND=whole.values_BKND,
            table_RM=whole.table_RM,
            rows_S=whole.rows_S.expand(len(spans)),
            starts=starts,
            lengths=[end for _, end in spans],
            num_singles=sum(end - begin == 1 for begin, end in spans),
        )
        out_THD = cut_case.run(terms, singles_too=True)
        assert torch.equal(out_THD, torch.cat([expected_THD[begin:end] for begin, end in spans]))


@triton.jit
def _owners(starts_ptr, blocks_ptr, out_ptr, first, end, BLOCK_Q: tl.constexpr):
    i = tl.program_id(0)
    block = tl.load(blocks_ptr + i)
    tl.store(out_ptr + i, find_sequence(starts_ptr, block, first, end, BLOCK_Q))


@pytest.mark.parametrize("num_seqs", [1, 2, 64, 65, 4099])
def test_finds_the_sequence_of_a_block(num_seqs: int) -> None:
    generator = torch.Generator().manual_seed(num_seqs)
    sizes = torch.randint(1, 40, (num_seqs,), generator=generator)
    starts = torch.cat((torch.zeros(1, dtype=torch.long), sizes.cumsum(0))).int()
    first_blocks = starts // 16 + torch.arange(num_seqs + 1)
    assert (first_blocks.diff() >= (sizes + 15) // 16).all(), "every chunk has room before the next"
    last = int(first_blocks[-1]) - 1
    blocks = torch.cat((torch.tensor([0, last]), torch.randint(0, last + 1, (20,), generator=generator)))
    found = torch.full((len(blocks),), -1, dtype=torch.int32)
    _owners[(len(blocks),)](starts, blocks.int(), found, 0, num_seqs, BLOCK_Q=16)
    expected = torch.searchsorted(first_blocks, blocks, right=True) - 1
    assert torch.equal(found.long(), expected)


@pytest.mark.parametrize("shared_memory", [64 << 10, 100 << 10, 163 << 10, 227 << 10])
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_fit_into_shared_memory(shared_memory: int, head_dim: int, itemsize: int) -> None:
    for is_short in (True, False):
        tile = choose_tile(head_dim, itemsize, is_short=is_short, shared_memory=shared_memory)
        row_bytes = triton.next_power_of_2(head_dim) * itemsize
        fits = tile.shared_bytes(row_bytes) <= shared_memory
        assert fits or (tile.keys == 16 and tile.stages == 1)


def test_hopper_gets_wide_tiles_for_long_chunks() -> None:
    assert choose_tile(128, 2, is_short=False, shared_memory=227 << 10).rows == 128
    assert choose_tile(128, 2, is_short=True, shared_memory=227 << 10).rows == 64
