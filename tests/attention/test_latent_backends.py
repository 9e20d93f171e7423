"""Backends for latent rows against attention written out with every head's keys and values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from octavo.attention.backends.cpu_latent import CpuLatentAttention
from octavo.attention.backends.triton_latent import TritonLatentAttention
from octavo.attention.choose import attention_needs, choose_backend
from octavo.attention.contract import StepLimits
from octavo.attention.latents import LatentShape
from octavo.base.errors import ConfigError
from octavo.messages.kv import KVKind, KVSpec
from tests.interpreted_triton import mend_interpreter
from tests.latent_step import MAX_SEQS, LatentStep, layout_of

mend_interpreter()
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are native here: tests/gpu tests those"),
    # Rows that only fill up a tile divide nothing by nothing.
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide"),
]
WIDE = LatentShape(latent=20, rotated=4, nope=6, value=10)
NARROW = LatentShape(latent=6, rotated=4, nope=8, value=16)
"""So narrow that chunks are always absorbed."""
HEADS = 3
LIMITS = StepLimits(
    max_seqs=MAX_SEQS, max_tokens=512, num_heads=HEADS, deterministic=False, chunk_attention="triton"
)
STEPS: dict[str, list[tuple[int, int]]] = {
    "singles": [(0, 1), (5, 1), (90, 1)],
    "one single": [(17, 1)],
    "chunks with and without a past": [(0, 9), (13, 2), (2, 30), (70, 3)],
    "all at once": [(3, 1), (40, 1), (0, 5), (60, 5), (1, 25)],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("backend", [CpuLatentAttention, TritonLatentAttention])
def test_every_kind_of_step(backend: Any, shape: LatentShape, step: str) -> None:
    LatentStep(STEPS[step], shape).check(backend(layout_of(shape), LIMITS))


@pytest.mark.parametrize("step", STEPS)
def test_one_kernel_for_all_where_the_engine_is_deterministic(step: str) -> None:
    backend = TritonLatentAttention(layout_of(WIDE), replace(LIMITS, deterministic=True))
    assert backend.long_prompt is None
    LatentStep(STEPS[step], WIDE).check(backend)


@pytest.mark.parametrize("sequences", [[(0, 70)], [(9, 1), (5, 6), (0, 40), (0, 33)]])
def test_long_prompts_are_expanded(sequences: list[tuple[int, int]]) -> None:
    num_long = 1 if len(sequences) == 1 else 2
    LatentStep(sequences, WIDE, num_long=num_long).check(TritonLatentAttention(layout_of(WIDE), LIMITS))


def test_long_chunks_are_expanded() -> None:
    backend = TritonLatentAttention(layout_of(WIDE), LIMITS)
    backend.long_prompt = 8
    step = LatentStep([(3, 1), (40, 3), (5, 30), (60, 20), (0, 33)], WIDE, num_long=1)
    plan = backend.plan(step.view)
    step.check_plan(plan)
    assert plan._cut is not None and [part[:2] for part in plan._cut.expanded] == [
        (4, 34),
        (34, 54),
        (54, 87),
    ]
    assert plan._cut.counts.tolist()[:2] == [1, 2] and step.view.counts.tolist()[:2] == [1, 4]
    assert not backend.expands(WIDE, 60, 512 * 8), "keys and values would take more than a step may"


def test_the_form_with_fewer_operations() -> None:
    deepseek = LatentShape(latent=512, rotated=64, nope=128, value=128)
    assert [deepseek.expanding_pays(queries, 8192) for queries in (1, 128, 256, 8192)] == [
        False,
        False,
        True,
        True,
    ]
    assert not NARROW.expanding_pays(100, 100)


def test_who_serves_latent_rows() -> None:
    spec = KVSpec(kind=KVKind.LATENT, num_kv_heads=1, head_dim=24, value_dim=20, dtype_bytes=4)
    needs = attention_needs([spec], HEADS, torch.float32, torch.device("cpu"))
    assert choose_backend(needs) is CpuLatentAttention
    assert choose_backend(needs - {"cpu"} | {"cuda"}) is TritonLatentAttention
    with pytest.raises(ConfigError, match="cpu-latent lacks full"):
        choose_backend(needs | {"full"})


def test_other_kernels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"chunk_attention is 'flash-attn'.*rows of 24"):
        TritonLatentAttention(layout_of(WIDE), replace(LIMITS, chunk_attention="flash-attn"))


@pytest.mark.parametrize("max_seqs", [1, 8, 64, 300, 1024])
@pytest.mark.parametrize("num_heads", [16, 128])
def test_every_captured_step_has_room_for_its_splits(num_heads: int, max_seqs: int) -> None:
    backend = TritonLatentAttention(layout_of(WIDE), replace(LIMITS, num_heads=num_heads, max_seqs=max_seqs))
    view = LatentStep([(0, 1)], WIDE).view
    for has_chunks in (False, True):
        for size in range(1, max_seqs + 1):
            step = replace(view, host=None, num_seqs=size, num_singles=size, has_chunks=has_chunks)
            backend.workspace.check(size * backend.num_parts, backend.plan(step).num_splits)
