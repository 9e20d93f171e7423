"""The step's bookkeeping beyond its examples: a step in words, and what must not be touched or read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from octavo.ops.step import SEQUENCES, SINGLES, TOKENS, append_tokens, gather_step, write_segments
from octavo.ops.triton import step as triton_step

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="interpreted; tests/gpu has the native tests"
)

GATHER = [
    pytest.param(gather_step.plain, id="plain"),
    pytest.param(triton_step.gather_step, id="triton"),
]
GARBAGE = 1 << 30


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("form", GATHER)
def test_a_step_spelled_out(form: Callable[..., None]) -> None:
    """Row 2 decodes its token 5, row 0 computes its tokens 3, 4 and 5; blocks of 4, one group."""
    memory_RW = torch.zeros(3, 12, dtype=torch.int32)
    memory_RW[2] = ints(20, 21, 22, 23, 24, 25, 0, 0, 0, 0, 7, 9)
    memory_RW[0] = ints(1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 11, 13)
    counts = torch.full((8,), GARBAGE, dtype=torch.int32)
    counts[SINGLES], counts[TOKENS], counts[SEQUENCES] = 1, 4, 2
    token_ids_T, positions_T, slots_GT = (
        ints(*[-5] * 6),
        ints(*[-5] * 6),
        torch.full((1, 6), -5, dtype=torch.int32),
    )
    form(
        memory_RW,
        ints(2, 0, GARBAGE),
        ints(0, 1, 4, GARBAGE),
        ints(5, 3, GARBAGE),
        counts,
        [10],
        4,
        token_ids_T,
        positions_T,
        slots_GT,
    )
    assert token_ids_T.tolist() == [25, 4, 5, 6, 0, 0]
    assert positions_T.tolist() == [5, 3, 4, 5, 0, 0]
    assert slots_GT.tolist() == [[9 * 4 + 1, 11 * 4 + 3, 13 * 4, 13 * 4 + 1, -1, -1]]


@pytest.mark.parametrize("form", GATHER)
def test_every_token_finds_its_sequence(form: Callable[..., None]) -> None:
    """Many sequences of random sizes, singles first; each row's token at position p is 1000 row + p."""
    generator = torch.Generator().manual_seed(0)
    num_singles, num_seqs = 37, 90
    sizes = [1] * num_singles + torch.randint(2, 9, (num_seqs - num_singles,), generator=generator).tolist()
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    rows = torch.randperm(num_seqs, generator=generator).tolist()
    firsts = torch.randint(0, 20, (num_seqs,), generator=generator).tolist()
    memory_RW = torch.arange(num_seqs, dtype=torch.int32)[:, None] * 1000 + torch.arange(
        60, dtype=torch.int32
    )
    counts = torch.zeros(8, dtype=torch.int32)
    counts[SINGLES], counts[TOKENS], counts[SEQUENCES] = num_singles, starts[-1], num_seqs
    token_ids_T, positions_T = torch.empty(2, starts[-1], dtype=torch.int32)
    slots_GT = torch.empty(2, starts[-1], dtype=torch.int32)
    form(
        memory_RW,
        ints(*rows),
        ints(*starts),
        ints(*firsts),
        counts,
        [28, 31],
        16,
        token_ids_T,
        positions_T,
        slots_GT,
    )
    expected = [
        (row, first + i) for row, first, size in zip(rows, firsts, sizes, strict=True) for i in range(size)
    ]
    assert positions_T.tolist() == [position for _, position in expected]
    assert token_ids_T.tolist() == [1000 * row + position for row, position in expected]
    for slots_T, column in zip(slots_GT.tolist(), (28, 31), strict=True):
        assert slots_T == [(1000 * row + column + p // 16) * 16 + p % 16 for row, p in expected]


@pytest.mark.parametrize("form", [write_segments.plain, triton_step.write_segments])
def test_segments_reach_their_places_only(form: Callable[..., None]) -> None:
    memory_RW = torch.full((3, 3000), -1, dtype=torch.int32)
    payload_N = torch.arange(5000, dtype=torch.int32)
    segments = [(1, 10, 2500, 100), (0, 2999, 1, 7), (2, 0, 0, 4999), (2, 5, 3, 4997)]
    form(memory_RW, payload_N, torch.tensor(segments, dtype=torch.int32), 2500)
    expected = torch.full((3, 3000), -1, dtype=torch.int32)
    for row, column, count, offset in segments:
        expected[row, column : column + count] = payload_N[offset : offset + count]
    assert torch.equal(memory_RW, expected)


@pytest.mark.parametrize("form", [append_tokens.plain, triton_step.append_tokens])
def test_tokens_are_appended_where_a_row_is_named(form: Callable[..., None]) -> None:
    memory_RW = torch.zeros(4, 5, dtype=torch.int32)
    form(memory_RW, ints(3, -1, 0), ints(4, 2, 0), torch.tensor([70, 80, 90]))
    assert memory_RW.nonzero().tolist() == [[0, 0], [3, 4]]
    assert memory_RW[3, 4] == 70 and memory_RW[0, 0] == 90


@pytest.mark.parametrize("form", GATHER)
def test_a_model_without_a_cache_has_tokens_and_no_slots(form: Callable[..., None]) -> None:
    memory_RW = torch.arange(24, dtype=torch.int32).view(2, 12)
    counts = torch.zeros(8, dtype=torch.int32)
    counts[SINGLES], counts[TOKENS], counts[SEQUENCES] = 1, 3, 2
    token_ids_T, positions_T = ints(*[-5] * 4), ints(*[-5] * 4)
    slots_GT = torch.empty(0, 4, dtype=torch.int32)
    rows_S, starts_S1, firsts_S = ints(1, 0), ints(0, 1, 3), ints(5, 2)
    form(memory_RW, rows_S, starts_S1, firsts_S, counts, [], 16, token_ids_T, positions_T, slots_GT)
    assert token_ids_T.tolist() == [17, 2, 3, 0]
    assert positions_T.tolist() == [5, 2, 3, 0]
