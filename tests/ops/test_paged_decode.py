"""The decode attention kernels, interpreted, against plain attention in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from octavo.base.errors import EngineError
from octavo.ops.paged_plain import AttentionTerms

pytest.importorskip("triton")
from octavo.ops.triton.paged_decode import paged_decode
from octavo.ops.triton.paged_decode_workspace import (
    Tuning,
    decode_splits,
    decode_tuning,
)
from tests.paged_decode_case import DecodeCase

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are native here: tests/gpu tests those"),
    # Rows that only fill up a tile divide nothing by nothing.
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide"),
]


def small(lengths: list[int], **shape: Any) -> DecodeCase:
    """Interpreted: few programs and short tiles."""
    tuning = Tuning(tile=16, num_warps=4, num_stages=3)
    return DecodeCase(lengths, tuning=tuning, num_sms=2, **shape)


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [
        {"num_heads": 2, "num_kv_heads": 2},  # each query head its own keys
        {"num_heads": 8, "num_kv_heads": 2, "head_dim": 20},  # a width that is no power of two
        {"num_heads": 3, "num_kv_heads": 1, "block_size": 1},
        {"num_heads": 17, "num_kv_heads": 1, "block_size": 32},  # more query heads than a tile's rows
        {"dtype": torch.float16},
    ],
    ids=str,
)
def test_agrees_with_plain(shape: dict, num_splits: int) -> None:
    """Not in bfloat16, whose matrices Triton's interpreter multiplies bit pattern by bit pattern."""
    case = small([1, 33, 16], **shape)
    case.check(case.run(num_splits=num_splits), 2e-3 if case.dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("window", [1, 20, 100])
def test_sees_only_the_window(window: int, num_splits: int) -> None:
    case = small([7, 40], num_kv_heads=1, terms=AttentionTerms(scale=0.3, window=window))
    case.forget_before_window()
    case.check(case.run(num_splits=num_splits))


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_soft_cap_and_sinks(soft_cap: float | None, num_splits: int) -> None:
    sinks_H = torch.tensor([-30.0, 0.5, 3.0, 60.0])
    case = small([2, 41], terms=AttentionTerms(scale=2.0, soft_cap=soft_cap, sinks_H=sinks_H))
    case.check(case.run(num_splits=num_splits))


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("is_rounded", [False, True])
@pytest.mark.parametrize("window", [None, 20])
def test_linear_biases(window: int | None, is_rounded: bool, num_splits: int) -> None:
    slopes_H = torch.tensor([0.5, 0.0625, 0.25, 0.703125])
    terms = AttentionTerms(scale=0.3, window=window, slopes_H=slopes_H, rounds_biases=is_rounded)
    case = small([2, 41], terms=terms)
    case.check(case.run(num_splits=num_splits))


def test_the_device_says_how_many_sequences_there_are() -> None:
    case = small([20, 3, 18], num_padded=0)
    case.counts[0] = 2
    workspace = case.run(num_splits=2)
    assert case.out_THD[2].isnan().all()
    case.lengths, case.out_THD = case.lengths[:2], case.out_THD[:2]
    case.check(workspace)


def test_no_sequences() -> None:
    case = small([3])
    paged_decode(*case.tensors(), case.terms, num_seqs=0, workspace=case.workspace())
    assert case.out_THD.isnan().all()


@pytest.mark.parametrize("num_splits", [None, 2, 9])
def test_any_number_of_splits(num_splits: int | None) -> None:
    case = small([100, 17], num_kv_heads=1)
    case.check(case.run(num_splits=num_splits))


def test_a_workspace_is_used_again() -> None:
    first, second = (small(lengths, num_kv_heads=1) for lengths in ([60, 33, 9], [20, 47, 48]))
    workspace = first.workspace(num_splits=3)
    for case in (first, second):
        case.check(case.run(num_splits=3, workspace=workspace))


def test_with_fixed_splits_a_result_depends_on_its_own_length_alone() -> None:
    crowd = small([90, 40, 3], num_kv_heads=1)
    crowd.run(num_splits=4, split_tokens=32)
    for i, length in enumerate(crowd.lengths):
        alone = small([length], num_kv_heads=1, num_padded=0)
        alone.keys_BKND, alone.values_BKND, alone.table_RM = (
            crowd.keys_BKND,
            crowd.values_BKND,
            crowd.table_RM,
        )
        alone.rows_S, alone.q_THD = crowd.rows_S[i : i + 1], crowd.q_THD[i : i + 1]
        alone.run(num_splits=4, split_tokens=32)
        assert torch.equal(alone.out_THD[0], crowd.out_THD[i])


@pytest.mark.parametrize("num_splits", [1, 2])
@pytest.mark.parametrize("num_shared_splits", [None, 1])
@pytest.mark.parametrize("num_shared_blocks", [0, 3, 10])
def test_shared_blocks(num_shared_blocks: int, num_shared_splits: int | None, num_splits: int) -> None:
    case = small([40, 60, 41], num_kv_heads=1, num_shared_blocks=num_shared_blocks)
    case.check(case.run_shared(num_splits=num_splits, num_shared_splits=num_shared_splits))


def test_shared_blocks_with_many_sequences_and_all_terms() -> None:
    terms = AttentionTerms(scale=1.0, soft_cap=3.0, sinks_H=torch.arange(9.0))
    lengths = [16 + i for i in range(9)]  # more than a tile of 64 rows holds
    case = small(
        lengths,
        num_heads=9,
        num_kv_heads=1,
        block_size=8,
        num_shared_blocks=2,
        terms=terms,
        head_dim=12,
    )
    case.check(case.run_shared(num_splits=2))


@pytest.mark.parametrize("is_rounded", [False, True])
def test_shared_blocks_with_linear_biases(is_rounded: bool) -> None:
    """Every sequence sees the shared blocks from where its own query stands."""
    slopes_H = torch.tensor([0.5, 0.25, 0.0625, 0.125, 0.703125, 0.75])
    terms = AttentionTerms(scale=0.3, slopes_H=slopes_H, rounds_biases=is_rounded)
    case = small([40, 60, 41], num_heads=6, num_kv_heads=2, block_size=8, num_shared_blocks=4, terms=terms)
    case.check(case.run_shared(num_splits=2))


def test_shared_blocks_and_a_window_do_not_go_together() -> None:
    case = small([9], terms=AttentionTerms(scale=1.0, window=4))
    with pytest.raises(EngineError, match="window"):
        case.run_shared(num_splits=1)


def test_a_workspace_that_is_too_small_is_refused() -> None:
    case = small([40, 40])
    with pytest.raises(EngineError, match="Allocate it for the largest batch"):
        paged_decode(
            *case.tensors(), case.terms, num_seqs=2, workspace=case.workspace(num_splits=2), num_splits=5
        )


def test_pages_of_different_strides_are_refused() -> None:
    case = small([4])
    case.values_BKND = case.values_BKND.contiguous()
    with pytest.raises(EngineError, match="strides"):
        case.run(num_splits=1)


@pytest.mark.parametrize("num_seqs", [1, 2, 16, 33, 66, 67, 1024])
def test_splits_fill_the_processors_and_no_more(num_seqs: int) -> None:
    splits = decode_splits(num_seqs, 8, 132)
    assert splits >= 1
    assert splits in (1, 64) or num_seqs * 8 * splits <= 2 * 132 < num_seqs * 8 * (splits + 1)


@pytest.mark.parametrize("head_bytes", [32, 128, 256, 512, 1024])
def test_tiles_fit_shared_memory(head_bytes: int) -> None:
    tuning = decode_tuning(head_bytes)
    assert tuning.tile >= 16
    assert 2 * tuning.tile * head_bytes * (tuning.num_stages - 1) <= 64 * 1024
