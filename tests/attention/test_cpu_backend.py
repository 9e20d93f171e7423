"""The cpu backend against attention written out, over random steps and block tables."""

from __future__ import annotations

import math
import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.attention.backends.cpu import SHORT, CpuAttention, runs
from octavo.attention.contract import AttentionLayer, PageLayout, StepLimits
from octavo.attention.step_view import HostView, StepView
from octavo.ops.paged_plain import AttentionTerms

WIDTH = 6


@st.composite
def steps(draw: st.DrawFn) -> dict[str, object]:
    """(tokens before, tokens now) per sequence, and the shape of heads, blocks and window."""
    sequence = st.tuples(st.integers(0, 300), st.integers(1, 40))
    single = st.tuples(st.integers(0, 300), st.just(1))
    return {
        "sequences": draw(st.lists(st.one_of(sequence, single), min_size=1, max_size=8)),
        "num_kv_heads": draw(st.sampled_from([1, 2, 3])),
        "group": draw(st.sampled_from([1, 2, 3])),
        "block_size": draw(st.sampled_from([1, 4, 16])),
        "spare": draw(st.sampled_from([0, 2])),
        "window": draw(st.sampled_from([None, None, 1, 5, 64, 1000])),
        "soft_cap": draw(st.sampled_from([None, None, 0.5, 20.0])),
        "has_sinks": draw(st.sampled_from([False, False, True])),
        "has_slopes": draw(st.sampled_from([False, False, True])),
        "rounds_biases": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=60, deadline=None)
@given(steps())
def test_equals_attention_written_out(case: dict[str, object]) -> None:
    check(**case)  # type: ignore[arg-type]


def check(
    *,
    sequences: list[tuple[int, int]],
    num_kv_heads: int,
    group: int,
    block_size: int,
    spare: int,
    window: int | None,
    seed: int,
    soft_cap: float | None = None,
    has_sinks: bool = False,
    has_slopes: bool = False,
    rounds_biases: bool = False,
) -> None:
    sequences = sorted(sequences, key=lambda s: (s[1] > 1, sum(s)))
    generator = torch.Generator().manual_seed(seed)
    needed = [-(-sum(s) // block_size) for s in sequences]
    num_blocks = sum(needed) + 3
    # Rows per page beyond a block's own: pages as a wider spec would make them.
    layout = PageLayout(
        block_size=block_size,
        rows_per_page=2 * block_size + spare,
        num_kv_heads=num_kv_heads,
        head_dim=WIDTH,
        window=window,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    pages = torch.full((num_blocks * layout.rows_per_page, num_kv_heads * WIDTH), float("nan"))
    free = list(range(num_blocks))
    random.Random(seed).shuffle(free)
    tables = [[free.pop() for _ in range(count)] for count in needed]
    half = layout.rows_per_page // 2

    def rows_of(table: list[int], positions: range) -> list[int]:
        return [table[p // block_size] * layout.rows_per_page + p % block_size for p in positions]

    keys = [torch.randn(sum(s), num_kv_heads, WIDTH, generator=generator) for s in sequences]
    values = [torch.randn(sum(s), num_kv_heads, WIDTH, generator=generator) for s in sequences]
    queries = [torch.randn(s[1], num_kv_heads * group, WIDTH, generator=generator) for s in sequences]
    for (before, _), table, k, v in zip(sequences, tables, keys, values, strict=True):
        kept = range(0 if window is None else max(0, before + 1 - window), before)
        rows = torch.tensor(rows_of(table, kept), dtype=torch.int64)
        pages[rows] = k[kept.start : before].flatten(1)
        pages[rows + half] = v[kept.start : before].flatten(1)

    starts = [0]
    for _, now in sequences:
        starts.append(starts[-1] + now)
    positions = torch.cat([torch.arange(before, before + now) for before, now in sequences])
    padded = torch.full((len(tables), max(needed)), num_blocks - 1)
    slots: list[int] = []
    for i, ((before, now), table) in enumerate(zip(sequences, tables, strict=True)):
        padded[i, : len(table)] = torch.tensor(table)
        slots += [table[p // block_size] * block_size + p % block_size for p in range(before, before + now)]
    starts_S1 = torch.tensor(starts)
    lengths = [sum(s) for s in sequences]
    view = StepView(
        host=HostView(query_starts=starts, lengths=lengths, num_paged=len(sequences)),
        num_tokens=starts[-1],
        num_seqs=len(sequences),
        num_singles=sum(now == 1 for _, now in sequences),
        has_chunks=any(now > 1 for _, now in sequences),
        shares_prefix=False,
        counts=torch.zeros(8, dtype=torch.int32),
        rows_S=torch.arange(len(sequences)),
        starts_S1=starts_S1,
        lengths_S=torch.tensor(lengths),
        positions_T=positions,
        slots_T=torch.tensor(slots),
        table_RM=padded,
    )
    sinks_H = torch.randn(num_kv_heads * group, generator=generator) if has_sinks else None
    slopes_H = torch.rand(num_kv_heads * group, generator=generator) if has_slopes else None
    terms = AttentionTerms(
        scale=0.3,
        window=window,
        soft_cap=soft_cap,
        sinks_H=sinks_H,
        slopes_H=slopes_H,
        rounds_biases=rounds_biases,
    )
    layer = AttentionLayer(
        index=0,
        num_heads=num_kv_heads * group,
        num_kv_heads=num_kv_heads,
        head_dim=WIDTH,
        terms=terms,
        rotation_PD=None,
        q_norm_D=None,
        k_norm_D=None,
        norm_epsilon=0.0,
    )
    fresh_k = torch.cat([k[before:] for (before, _), k in zip(sequences, keys, strict=True)])
    fresh_v = torch.cat([v[before:] for (before, _), v in zip(sequences, values, strict=True)])
    qkv_TO = torch.cat((torch.cat(queries), fresh_k, fresh_v), 1).flatten(1)
    limits = StepLimits(
        max_seqs=8,
        max_tokens=400,
        num_heads=num_kv_heads * group,
        deterministic=False,
        chunk_attention="triton",
    )
    found = CpuAttention(layout, limits).plan(view).run(layer, qkv_TO, layout.pages(pages))
    expected = torch.cat(
        [
            written_out(q, k, v, before, terms)
            for q, k, v, (before, _) in zip(queries, keys, values, sequences, strict=True)
        ]
    )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    for (before, now), table, k, v in zip(sequences, tables, keys, values, strict=True):
        rows = torch.tensor(rows_of(table, range(before, before + now)))
        assert torch.equal(pages[rows], k[before:].flatten(1))
        assert torch.equal(pages[rows + half], v[before:].flatten(1))


def written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, before: int, terms: AttentionTerms
) -> torch.Tensor:
    group = q.shape[1] // k.shape[1]
    out = torch.zeros_like(q)
    for i in range(q.shape[0]):
        last = before + i
        first = 0 if terms.window is None else max(0, last - terms.window + 1)
        for head in range(q.shape[1]):
            scores = k[first : last + 1, head // group] @ q[i, head] * terms.scale
            if terms.soft_cap is not None:
                scores = terms.soft_cap * torch.tanh(scores / terms.soft_cap)
            if terms.slopes_H is not None:
                scores = scores + written_out_biases(terms, terms.slopes_H[head], range(first, last + 1))
            if terms.sinks_H is not None:
                scores = torch.cat((scores, terms.sinks_H[head, None]))
            weights = torch.softmax(scores, 0)[: last + 1 - first]
            out[i, head] = weights @ v[first : last + 1, head // group]
    return out.flatten(1)


def written_out_biases(terms: AttentionTerms, slope: torch.Tensor, keys: range) -> torch.Tensor:
    """The last key is the query's."""
    if not terms.rounds_biases:
        return torch.tensor([slope.item() * (key - keys[-1]) for key in keys])
    biases = slope.bfloat16() * torch.tensor(keys, dtype=torch.bfloat16)
    return (biases.float() - biases[-1].float()) * terms.scale


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), max_size=40), st.sampled_from([1, 3000, 10**9]))
def test_runs(lengths: list[int], most_keys: int) -> None:
    lengths = sorted(lengths)
    found = runs(lengths, most_keys)
    assert [i for start, end in found for i in range(start, end)] == list(range(len(lengths)))
    for start, end in found:
        assert lengths[end - 1] < 2 * max(lengths[start], SHORT)
        assert end - start == 1 or (end - start) * lengths[end - 1] <= most_keys
    if lengths and most_keys == 10**9:
        assert len(found) <= 1 + math.log2(max(lengths[-1] / SHORT, 1))
