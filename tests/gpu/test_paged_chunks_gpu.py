"""Chunks over paged KV and dense prefill, native, in the models' shapes, against attention in float32."""

from __future__ import annotations

import math

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from octavo.attention.dense_prefill import dense_prefill
from octavo.ops.paged_plain import AttentionTerms, paged_attention
from octavo.ops.triton.paged_chunks import ChunkTile, paged_chunks

pytestmark = pytest.mark.gpu

BLOCK_SIZE = 16
LLAMA, QWEN = (32, 8, 128), (16, 8, 128)


class Step:
    """A step whose pages hold NaN where nothing was written. counts: (query tokens, tokens before them)."""

    def __init__(
        self,
        counts: list[tuple[int, int]],
        shape: tuple[int, int, int] = LLAMA,
        *,
        dtype: torch.dtype = torch.bfloat16,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator("cuda").manual_seed(seed)
        num_heads, num_kv_heads, head_dim = shape
        self.counts = counts
        self.lengths = [queries + past for queries, past in counts]
        self.starts = [0]
        for queries, _ in counts:
            self.starts.append(self.starts[-1] + queries)
        most = -(-max(self.lengths) // BLOCK_SIZE)
        self.rows = torch.randperm(len(counts), generator=generator, device="cuda").int()
        ids = torch.randperm(len(counts) * most, generator=generator, device="cuda").int() + 1
        self.table_RM = ids.view(len(counts), most)
        page_shape = (len(ids) + 1, 2, num_kv_heads, BLOCK_SIZE, head_dim)
        pages = torch.randn(page_shape, generator=generator, device="cuda", dtype=dtype)
        pages[0] = math.nan
        for row, length in zip(self.rows.tolist(), self.lengths, strict=True):
            last, used = divmod(length, BLOCK_SIZE)
            if used:
                pages[self.table_RM[row, last].long(), :, :, used:] = math.nan
            self.table_RM[row, last + (used > 0) :] = 0
        self.keys, self.values = pages[:, 0], pages[:, 1]
        fused = torch.randn(
            self.starts[-1],
            num_heads + 2 * num_kv_heads,
            head_dim,
            generator=generator,
            device="cuda",
            dtype=dtype,
        )
        self.q_THD = fused[:, :num_heads]

    def run(
        self, terms: AttentionTerms, *, singles_too: bool = False, tile: ChunkTile | None = None
    ) -> torch.Tensor:
        out_THD = torch.full_like(self.q_THD, math.nan, memory_format=torch.contiguous_format)
        num_singles = sum(queries == 1 for queries, _ in self.counts)
        paged_chunks(
            self.q_THD,
            self.keys,
            self.values,
            self.table_RM,
            self.rows,
            _int32(self.starts),
            _int32(self.lengths),
            _int32([num_singles, len(self.counts), self.starts[-1]]),
            out_THD,
            terms,
            max_tokens=self.starts[-1] + 64,
            max_seqs=len(self.counts) + 3,
            singles_too=singles_too,
            tile=tile,
        )
        return out_THD

    def expected(self, terms: AttentionTerms) -> torch.Tensor:
        tables_SM = self.table_RM[self.rows.long()]
        pages = (self.keys.float(), self.values.float())
        return paged_attention(self.q_THD.float(), *pages, tables_SM, self.starts, self.lengths, terms)


def _int32(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device="cuda")


def _error(out: torch.Tensor, expected: torch.Tensor) -> float:
    return ((out.float() - expected).norm() / expected.norm()).item()


MIXED = [(1, 500), (1, 7), (700, 0), (64, 1000), (9, 130), (128, 1921), (2, 63)]
TERMS = AttentionTerms(scale=128**-0.5)


@pytest.mark.parametrize(
    "shape", [LLAMA, QWEN, (14, 2, 64), (6, 6, 96), (8, 1, 80), (8, 4, 256)], ids=lambda shape: f"{shape}"
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equals_plain_attention(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    step = Step(MIXED, shape, dtype=dtype)
    terms = AttentionTerms(scale=shape[2] ** -0.5)
    out_THD = step.run(terms)
    assert _error(out_THD[2:], step.expected(terms)[2:]) < 6e-3
    assert out_THD[:2].isnan().all(), "sequences of one token are not ours"


def test_float32_is_exact() -> None:
    step = Step(MIXED, QWEN, dtype=torch.float32)
    assert _error(step.run(TERMS)[2:], step.expected(TERMS)[2:]) < 1e-5


def test_short_chunks() -> None:
    step = Step([(3, 200 + i) for i in range(80)], seed=1)
    assert _error(step.run(TERMS), step.expected(TERMS)) < 6e-3


@pytest.mark.parametrize(
    "terms",
    [
        AttentionTerms(scale=0.1, window=200),
        AttentionTerms(scale=0.1, window=64, soft_cap=5.0),
        AttentionTerms(scale=0.1, soft_cap=30.0),
    ],
)
def test_window_and_soft_cap(terms: AttentionTerms) -> None:
    step = Step(MIXED, seed=2)
    assert _error(step.run(terms)[2:], step.expected(terms)[2:]) < 6e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sinks(dtype: torch.dtype) -> None:
    step = Step(MIXED, seed=3)
    terms = AttentionTerms(scale=0.1, window=128, sinks_H=(torch.randn(32, device="cuda") * 3).to(dtype))
    assert _error(step.run(terms)[2:], step.expected(terms)[2:]) < 6e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 128])
@pytest.mark.parametrize("rounds_biases", [False, True])
def test_linear_biases(rounds_biases: bool, window: int | None, dtype: torch.dtype) -> None:
    step = Step(MIXED, seed=3, dtype=dtype)
    slopes_H = torch.linspace(0.003, 0.7, 32, device="cuda").bfloat16().float()
    terms = AttentionTerms(scale=0.1, window=window, slopes_H=slopes_H, rounds_biases=rounds_biases)
    error = _error(step.run(terms)[2:], step.expected(terms)[2:])
    assert error < (6e-3 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("tile", [None, ChunkTile(128, 64, 8, 3)])
def test_same_bits_however_a_prompt_is_cut(tile: ChunkTile | None) -> None:
    whole = Step([(1000, 0)], seed=4)
    expected_THD = whole.run(TERMS, singles_too=True, tile=tile)
    for cut in ([1], [64, 512], [333, 334, 999]):
        spans = list(zip([0, *cut], [*cut, 1000], strict=True))
        spans.sort(key=lambda span: span[1] - span[0] > 1)
        step = Step([(end - start, start) for start, end in spans])
        step.q_THD = torch.cat([whole.q_THD[start:end] for start, end in spans])
        step.keys, step.values, step.table_RM = whole.keys, whole.values, whole.table_RM
        step.rows = whole.rows.expand(len(spans)).contiguous()
        out_THD = step.run(TERMS, singles_too=True, tile=tile)
        assert torch.equal(out_THD, torch.cat([expected_THD[start:end] for start, end in spans]))


def test_a_graph_serves_other_contents() -> None:
    """Captured for one step, replayed for a smaller one: programs that have nothing to do write nothing."""
    step = Step(MIXED, seed=5)
    starts, lengths = _int32(step.starts), _int32(step.lengths)
    counts = _int32([2, len(MIXED), step.starts[-1]])
    out_THD = torch.full_like(step.q_THD, math.nan, memory_format=torch.contiguous_format)

    def call() -> None:
        paged_chunks(
            step.q_THD,
            step.keys,
            step.values,
            step.table_RM,
            step.rows,
            starts,
            lengths,
            counts,
            out_THD,
            TERMS,
            max_tokens=step.starts[-1],
            max_seqs=len(MIXED),
        )

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    out_THD.fill_(math.nan)
    counts.copy_(_int32([2, 4, step.starts[4]]))
    graph.replay()
    begin, end = step.starts[2], step.starts[4]
    assert _error(out_THD[begin:end], step.expected(TERMS)[begin:end]) < 6e-3
    assert out_THD[:begin].isnan().all()
    assert out_THD[end:].isnan().all()


@pytest.mark.parametrize("shape", [LLAMA, QWEN])
def test_dense_prefill(shape: tuple[int, int, int]) -> None:
    num_heads, num_kv_heads, head_dim = shape
    fused = torch.randn(3000, num_heads + 2 * num_kv_heads, head_dim, device="cuda", dtype=torch.bfloat16)
    fused[1100:1200] = math.nan
    q_THD, k_TKD, v_TKD = fused.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    scale = head_dim**-0.5
    for start, end in [(0, 1100), (1200, 1200 + 1024)]:
        pages = [x[start:end].transpose(0, 1)[None] for x in (k_TKD, v_TKD)]
        table_SM = torch.zeros(1, 1, dtype=torch.int32, device="cuda")
        length = end - start
        expected_THD = paged_attention(
            q_THD[start:end].float(), *pages, table_SM, [0, length], [length], AttentionTerms(scale=scale)
        )
        found_THD = dense_prefill(q_THD[start:end], k_TKD[start:end], v_TKD[start:end], scale)
        assert _error(found_THD, expected_THD) < 6e-3
