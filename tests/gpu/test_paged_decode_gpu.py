"""The decode attention kernels on the GPU, at the models' shapes, against plain attention in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from octavo.ops.paged_plain import AttentionTerms

pytest.importorskip("triton")
from tests.paged_decode_case import DecodeCase

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCE = {torch.bfloat16: 6e-3, torch.float16: 1e-3, torch.float32: 1e-5}


def real(lengths: list[int], **shape: Any) -> DecodeCase:
    """llama8b unless said otherwise."""
    defaults = {
        "num_heads": 32,
        "num_kv_heads": 8,
        "head_dim": 128,
        "block_size": 16,
        "dtype": torch.bfloat16,
        "device": "cuda",
        "num_padded": 3,
        "terms": AttentionTerms(scale=128**-0.5),
    }
    return DecodeCase(lengths, **(defaults | shape))


def spread(num_seqs: int, most: int) -> list[int]:
    lengths = torch.randint(1, most, (num_seqs,), generator=torch.Generator().manual_seed(most)).tolist()
    return [*lengths, most, 1]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(
    "lengths",
    [[256], [1], [9000, 3], spread(30, 4096), spread(254, 512)],
    ids=lambda lengths: str(len(lengths)),
)
def test_llama8b(lengths: list[int], dtype: torch.dtype) -> None:
    case = real(lengths, dtype=dtype)
    case.check(case.run(), TOLERANCE[dtype])


@pytest.mark.parametrize("num_splits", [1, 5])
@pytest.mark.parametrize(
    "shape",
    [
        {"num_heads": 16},
        {"num_heads": 8, "head_dim": 64},
        {"num_heads": 14, "num_kv_heads": 2, "head_dim": 64, "block_size": 1},
        {"num_heads": 128, "head_dim": 64, "block_size": 32},
        {"num_heads": 40, "num_kv_heads": 1, "head_dim": 96},
        {"head_dim": 80},
        {"head_dim": 20, "block_size": 128},  # rows that no wide load fits
        {"num_heads": 16, "head_dim": 256},
        {"num_heads": 16, "head_dim": 256, "dtype": torch.float32},
    ],
    ids=str,
)
def test_other_shapes(shape: dict, num_splits: int) -> None:
    case = real(spread(20, 700), **shape)
    case.check(case.run(num_splits=num_splits), TOLERANCE[case.dtype])


@pytest.mark.parametrize("num_splits", [1, 7])
@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_terms(soft_cap: float | None, window: int | None, num_splits: int) -> None:
    sinks_H = torch.linspace(-20, 20, 32, device="cuda")
    terms = AttentionTerms(scale=0.4, window=window, soft_cap=soft_cap, sinks_H=sinks_H)
    case = real(spread(9, 2000), terms=terms)
    if window is not None:
        case.forget_before_window()
    case.check(case.run(num_splits=num_splits), TOLERANCE[case.dtype])


@pytest.mark.parametrize("num_splits", [1, 7])
@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("rounds_biases", [False, True])
def test_linear_biases(rounds_biases: bool, window: int | None, num_splits: int) -> None:
    slopes_H = torch.linspace(0.003, 0.7, 32, device="cuda").bfloat16().float()
    terms = AttentionTerms(scale=0.4, window=window, slopes_H=slopes_H, rounds_biases=rounds_biases)
    case = real(spread(9, 2000), terms=terms)
    if window is not None:
        case.forget_before_window()
    case.check(case.run(num_splits=num_splits), TOLERANCE[case.dtype])


def test_whoever_finishes_last_the_bits_are_the_same() -> None:
    case = real(spread(40, 3000))
    workspace = case.run(num_splits=16)
    case.check(workspace, TOLERANCE[case.dtype])
    first_THD = case.out_THD.clone()
    for _ in range(200):
        case.out_THD.fill_(float("nan"))
        case.run(num_splits=16, workspace=workspace)
        assert torch.equal(case.out_THD[: case.num_seqs], first_THD[: case.num_seqs])
    assert not workspace.counters.any()


def test_alone_and_in_a_crowd_the_bits_are_the_same() -> None:
    crowd = real(spread(62, 3000))
    crowd.run(num_splits=8, split_tokens=256)
    for i in (0, 17, 62):
        alone = real([crowd.lengths[i]], num_padded=0)
        alone.keys_BKND, alone.values_BKND = crowd.keys_BKND, crowd.values_BKND
        alone.table_RM = crowd.table_RM
        alone.rows_S, alone.q_THD = crowd.rows_S[i : i + 1], crowd.q_THD[i : i + 1]
        alone.run(num_splits=8, split_tokens=256)
        assert torch.equal(alone.out_THD[0], crowd.out_THD[i])


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_graph_serves_later_steps(is_shared: bool) -> None:
    """The same graph with other lengths, other rows, fewer sequences, more or no shared blocks."""
    lengths = [400, 500, 640, 380, 810]
    case = real(lengths, num_shared_blocks=20 if is_shared else 0)
    run = case.run_shared if is_shared else case.run
    workspace = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(workspace=workspace)
    for num_shared in (20, 7, 0) if is_shared else (0,):
        for num_seqs in (5, 2, 4):
            case.lengths = [length - 3 * num_seqs for length in lengths[:num_seqs]]
            case.lengths_S[:num_seqs] = torch.tensor(case.lengths, device="cuda")
            case.counts.copy_(torch.tensor([num_seqs, num_seqs, num_seqs, num_shared]))
            case.out_THD.fill_(float("nan"))
            graph.replay()
            case.check(workspace, TOLERANCE[case.dtype])


@pytest.mark.parametrize("num_splits", [None, 3])
@pytest.mark.parametrize("num_shared_blocks", [0, 1, 40, 128])
@pytest.mark.parametrize(
    "shape", [{}, {"num_heads": 16}, {"num_heads": 24, "head_dim": 80}, {"head_dim": 256}], ids=str
)
def test_shared_blocks(shape: dict, num_shared_blocks: int, num_splits: int | None) -> None:
    lengths = [16 * num_shared_blocks + length for length in spread(50, 200)]
    case = real(lengths, num_shared_blocks=num_shared_blocks, **shape)
    case.check(case.run_shared(num_splits=num_splits), TOLERANCE[case.dtype])


@pytest.mark.parametrize("rounds_biases", [False, True])
def test_shared_blocks_with_linear_biases_in_float32(rounds_biases: bool) -> None:
    slopes_H = torch.linspace(0.003, 0.7, 32, device="cuda").bfloat16().float()
    terms = AttentionTerms(scale=0.4, slopes_H=slopes_H, rounds_biases=rounds_biases)
    case = real([160 + 9 * i for i in range(21)], num_shared_blocks=10, terms=terms, dtype=torch.float32)
    case.check(case.run_shared(), TOLERANCE[case.dtype])


def test_shared_blocks_with_soft_cap_and_sinks_in_float32() -> None:
    sinks_H = torch.linspace(-5, 5, 32, device="cuda")
    terms = AttentionTerms(scale=0.4, soft_cap=5.0, sinks_H=sinks_H)
    case = real([160 + i for i in range(21)], num_shared_blocks=10, terms=terms, dtype=torch.float32)
    case.check(case.run_shared(), TOLERANCE[case.dtype])
