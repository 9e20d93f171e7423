"""Chunks by flash-attn-4, where it is installed: the same answers as plain attention, by the same pages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("flash_attn.cute")

from benchmarks.gpu.check import generate, prompts, token_logprobs
from benchmarks.gpu.tiny_models import load_reference, round_weights, save_tiny
from octavo.attention.contract import AttentionLayer, Pages
from octavo.attention.flash_chunks import FlashChunks
from octavo.attention.step_view import HostView, StepView
from octavo.ops.paged_plain import AttentionTerms
from tests.gpu.test_paged_chunks_gpu import BLOCK_SIZE, LLAMA, QWEN, Step

pytestmark = pytest.mark.gpu

MIXED = [(1, 500), (1, 7), (700, 0), (64, 1000), (9, 130), (128, 1921), (2, 63), (5, 0), (17, 1)]


def run(step: Step, shape: tuple[int, int, int]) -> torch.Tensor:
    def int32(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device="cuda")

    num_singles = sum(queries == 1 for queries, _ in step.counts)
    nothing = torch.empty(0, device="cuda")
    view = StepView(
        host=None,
        num_tokens=step.starts[-1],
        num_seqs=len(step.counts),
        num_singles=num_singles,
        has_chunks=True,
        shares_prefix=False,
        counts=nothing,
        rows_S=step.rows,
        starts_S1=int32(step.starts),
        lengths_S=int32(step.lengths),
        positions_T=nothing,
        slots_T=nothing,
        table_RM=step.table_RM,
    )
    host = HostView(query_starts=step.starts, lengths=step.lengths, num_paged=len(step.counts))
    layer = AttentionLayer(
        index=0,
        num_heads=shape[0],
        num_kv_heads=shape[1],
        head_dim=shape[2],
        terms=AttentionTerms(scale=shape[2] ** -0.5),
        rotation_PD=None,
        q_norm_D=None,
        k_norm_D=None,
        norm_epsilon=0.0,
    )
    out_THD = torch.full_like(step.q_THD, math.nan, memory_format=torch.contiguous_format)
    pages = Pages(nothing, step.keys, step.values)
    FlashChunks(view, host, BLOCK_SIZE).run(layer, step.q_THD, pages, out_THD)
    return out_THD


@pytest.mark.parametrize("shape", [LLAMA, QWEN, (14, 2, 64)], ids=lambda shape: f"{shape}")
def test_equals_plain_attention(shape: tuple[int, int, int]) -> None:
    step = Step(MIXED, shape)
    terms = AttentionTerms(scale=shape[2] ** -0.5)
    for _ in range(3):  # what other work left in shared memory must not matter
        torch.full((64, 2**20), math.nan, device="cuda").softmax(-1)
        out_THD, expected_THD = run(step, shape), step.expected(terms)
        wrong = (out_THD[2:].float() - expected_THD[2:]).norm() / expected_THD[2:].norm()
        assert wrong < 6e-3
    assert out_THD[:2].isnan().all(), "sequences of one token are not its own"


def test_an_engine_with_it_is_as_near_to_float32(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "llama")
    exact_model = round_weights(load_reference(folder, "cuda"))
    errors = []
    for provider in ("triton", "flash-attn"):
        answers = generate(folder, prompts(), dtype="bfloat16", chunk_attention=provider)
        wrong = [
            abs(mine - right)
            for answer in answers
            for mine, right in zip(answer.logprobs, token_logprobs(exact_model, answer)[0], strict=True)
        ]
        errors.append(sum(wrong) / len(wrong))
    assert errors[1] <= 1.2 * errors[0] + 1e-3
