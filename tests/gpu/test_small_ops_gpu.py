"""The small kernels of a step, compiled: examples, bfloat16 in the models' shapes, graphs, large pages."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from octavo.ops.activation import gated_gelu, gated_silu
from octavo.ops.contract import Op
from octavo.ops.heads import prepare_heads
from octavo.ops.layer_norm import add_layer_norm, layer_norm
from octavo.ops.norm import add_rms_norm, rms_norm
from octavo.ops.sampling.token_masks import mask_tokens
from octavo.ops.step import SEQUENCES, SINGLES, TOKENS, append_tokens, gather_step, write_segments
from octavo.ops.triton import pdl

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
ROUNDED = 0.006
"""Relative error that two or three roundings to bfloat16 explain."""
OPS = [
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    rms_norm,
    gated_gelu,
    gated_silu,
    mask_tokens,
    prepare_heads,
    write_segments,
    append_tokens,
    gather_step,
]


def bf16(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=CUDA).bfloat16()


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=CUDA)


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.float() - truth.float()).norm() / truth.float().norm())


def rotation_of(width: int) -> torch.Tensor:
    angles = torch.rand(16384, width // 2, device=CUDA) * 100
    return torch.cat((angles.cos(), angles.sin()), -1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_examples(op: Op[..., Any], dtype: torch.dtype) -> None:
    tolerance = {"atol": op.tolerance, "rtol": op.tolerance}
    if dtype != torch.float32:
        tolerance = {"atol": 0.05, "rtol": 0.02}
    for example, same in zip(op.examples(), op.examples(), strict=True):
        given, truth = on_gpu(op, example, dtype), on_gpu(op, same, dtype)
        torch.cuda.synchronize()
        found = op.on(CUDA)(*given)
        torch.testing.assert_close(found, op.plain(*truth), **tolerance)
        for i in op.writes:
            torch.testing.assert_close(given[i], truth[i], **tolerance)


def on_gpu(op: Op[..., Any], example: tuple[Any, ...], dtype: torch.dtype) -> list[Any]:
    moved = []
    for i, value in enumerate(example):
        if isinstance(value, torch.Tensor):
            is_narrow = value.is_floating_point() and i not in op.float32_arguments
            value = value.to(CUDA, dtype if is_narrow else value.dtype)
        moved.append(value)
    return moved


@pytest.mark.parametrize("width", [1024, 4096, 2880, 16384])
@pytest.mark.parametrize("tokens", [1, 5, 256, 2048])
def test_add_rms_norm(tokens: int, width: int) -> None:
    x, delta, weight = bf16(tokens, width), bf16(tokens, width), bf16(width)
    torch.cuda.synchronize()
    sum_TE, normed_TE = add_rms_norm.on(CUDA)(x, delta, weight, 1e-5)
    assert torch.equal(sum_TE, x + delta)
    assert error(normed_TE, add_rms_norm.plain(x.float(), delta.float(), weight.float(), 1e-5)[1]) < ROUNDED
    assert torch.equal(normed_TE, rms_norm.on(CUDA)(sum_TE, weight, 1e-5))
    for row in {0, tokens // 2, tokens - 1}:
        alone = add_rms_norm.on(CUDA)(x[row : row + 1], delta[row : row + 1], weight, 1e-5)
        assert torch.equal(alone[1][0], normed_TE[row]), "a row does not depend on the others"


@pytest.mark.parametrize("width", [3072, 14336, 1000])
@pytest.mark.parametrize("tokens", [1, 7, 512])
def test_gated_silu(tokens: int, width: int) -> None:
    x = bf16(tokens, 2 * width) * 3
    assert error(gated_silu.on(CUDA)(x), gated_silu.plain(x.float())) < ROUNDED


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "rotated", "has_norms"),
    [
        (32, 8, 128, 128, False),
        (16, 8, 128, 128, True),
        (9, 3, 64, 64, False),
        (8, 1, 256, 256, True),
        (32, 32, 80, 32, False),
        (14, 2, 96, 96, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("tokens", [1, 3, 300])
@pytest.mark.parametrize("is_head_major", [True, False])
def test_prepare_heads(
    tokens: int, heads: int, kv_heads: int, width: int, rotated: int, has_norms: bool, is_head_major: bool
) -> None:
    sizes = (kv_heads, 16) if is_head_major else (16, kv_heads)
    pages = torch.full((40, 2, *sizes, width), float("nan"), device=CUDA, dtype=torch.bfloat16)
    pages_exact = pages.float()
    qkv = bf16(tokens, (heads + 2 * kv_heads) * width)
    exact = qkv.float()
    slots = torch.randperm(640, device=CUDA, dtype=torch.int32)[:tokens]
    slots[1::5] = -1
    positions = torch.randint(0, 16384, (tokens,), device=CUDA, dtype=torch.int32)
    rotation = rotation_of(rotated)
    norms = (bf16(width), bf16(width)) if has_norms else (None, None)
    exact_norms = tuple(None if norm is None else norm.float() for norm in norms)

    def halves(array: torch.Tensor) -> list[torch.Tensor]:
        return [half if is_head_major else half.transpose(1, 2) for half in array.unbind(1)]

    torch.cuda.synchronize()
    prepare_heads.on(CUDA)(qkv, positions, slots, rotation, *norms, 1e-6, *halves(pages), heads)
    prepare_heads.plain(exact, positions, slots, rotation, *exact_norms, 1e-6, *halves(pages_exact), heads)
    assert error(qkv, exact) < ROUNDED
    is_written = pages_exact.isfinite()
    assert torch.equal(pages.isfinite(), is_written)
    assert error(pages[is_written], pages_exact[is_written]) < ROUNDED


def test_pages_beyond_2_31_values() -> None:
    num_blocks = 70_000
    pages = torch.zeros(num_blocks, 2, 8, 16, 128, device=CUDA, dtype=torch.bfloat16)
    assert pages.numel() > 1 << 31
    qkv = bf16(2, 48 * 128)
    slots = ints([num_blocks * 16 - 1, 5])
    prepare_heads.on(CUDA)(qkv, ints([0, 1]), slots, None, None, None, 1e-6, pages[:, 0], pages[:, 1], 32)
    heads = qkv.view(2, 48, 128)
    assert torch.equal(pages[-1, 0, :, 15], heads[0, 32:40])
    assert torch.equal(pages[-1, 1, :, 15], heads[0, 40:])
    assert torch.equal(pages[0, 1, :, 5], heads[1, 40:])
    assert int(pages.count_nonzero()) == int(heads[:, 32:].count_nonzero())


@pytest.mark.parametrize("overlaps", [True, False])
def test_a_chain_in_a_graph_gives_what_single_calls_give(
    overlaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 layers of small kernels, each reading what the one before wrote: none may start too early."""
    tokens, heads, kv_heads, width = 4, 32, 8, 128
    weight, rotation = bf16(4096), rotation_of(width)
    pages = torch.zeros(4, 2, kv_heads, 16, width, device=CUDA, dtype=torch.bfloat16)
    positions, slots = ints([3, 900, 7, 0]), ints([17, 40, 2, -1])
    x = bf16(tokens, 4096)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        stream, delta = x, x
        for _ in range(40):
            stream, normed = add_rms_norm.on(CUDA)(stream, delta, weight, 1e-5)
            qkv = torch.cat((normed, normed[:, :2048]), -1)
            prepare_heads.on(CUDA)(
                qkv, positions, slots, rotation, None, None, 1e-6, pages[:, 0], pages[:, 1], heads
            )
            # One of ours straight behind the other, three times.
            gated = gated_silu.on(CUDA)(qkv)
            delta, _ = add_rms_norm.on(CUDA)(normed[:, :3072], gated, weight[:3072], 1e-5)
            delta = torch.nn.functional.pad(rms_norm.on(CUDA)(delta, weight[:3072], 1e-5), (0, 1024))
        return stream, pages.clone()

    monkeypatch.setattr(pdl, "ENABLED", False)
    run()
    torch.cuda.synchronize()
    expected = run()
    monkeypatch.setattr(pdl, "ENABLED", overlaps)
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    for _ in range(20):
        pages.zero_()
        for result in found:
            result.fill_(float("nan"))
        graph.replay()
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_long_segments() -> None:
    memory = torch.zeros(8, 140_000, dtype=torch.int32, device=CUDA)
    payload = torch.randint(1, 1 << 30, (300_000,), dtype=torch.int32, device=CUDA)
    segments = [(3, 5, 131_072, 7), (0, 0, 1, 299_999), (7, 139_000, 1000, 140_001), (2, 100, 0, 0)]
    expected = memory.clone()
    write_segments.plain(expected, payload, ints(segments), 131_072)
    write_segments.on(CUDA)(memory, payload, ints(segments), 131_072)
    assert torch.equal(memory, expected)


def test_a_captured_gather_follows_the_counts() -> None:
    """One graph for up to 1024 sequences and 4096 tokens, replayed with several steps."""
    most_seqs, most_tokens = 1024, 4096
    memory = torch.randint(0, 1000, (most_seqs, 6000), dtype=torch.int32, device=CUDA)
    counts, rows = ints([0] * 8), ints([0] * most_seqs)
    starts, firsts = ints([0] * (most_seqs + 1)), ints([0] * most_seqs)
    outputs = torch.zeros(4, most_tokens, dtype=torch.int32, device=CUDA)
    arguments = (memory, rows, starts, firsts, counts, [5000, 5400], 16, outputs[0], outputs[1], outputs[2:])
    gather = gather_step.on(CUDA)
    gather(*arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gather(*arguments)
    for sizes in ([1], [1] * 1024, [1] * 100 + [7] * 300, [2000, 2096], [1, 4000], [5] * 7):
        garbage = 1 << 30
        for buffer in (rows, starts, firsts, counts, outputs):
            buffer.fill_(garbage)
        num_seqs, steps = len(sizes), [0, *itertools.accumulate(sizes)]
        counts[SINGLES], counts[TOKENS], counts[SEQUENCES] = sizes.count(1), steps[-1], num_seqs
        starts[: num_seqs + 1] = ints(steps)
        rows[:num_seqs] = torch.randperm(most_seqs, device=CUDA)[:num_seqs].int()
        firsts[:num_seqs] = torch.randint(0, 1900, (num_seqs,), device=CUDA).int()
        # The largest chunks start at 0, so that positions stay within a row's tokens.
        firsts[:num_seqs][ints(sizes) > 100] = 0
        graph.replay()
        found = outputs.clone()
        gather_step.plain(*arguments)
        assert torch.equal(found, outputs)


def test_appended_tokens() -> None:
    memory = torch.zeros(1024, 100, dtype=torch.int32, device=CUDA)
    rows = torch.randperm(1024, device=CUDA).int()
    rows[::7] = -1
    columns, token_ids = rows % 100, torch.randint(1, 150_000, (1024,), device=CUDA)
    expected = memory.clone()
    append_tokens.plain(expected, rows, columns, token_ids)
    append_tokens.on(CUDA)(memory, rows, columns, token_ids)
    assert torch.equal(memory, expected)
