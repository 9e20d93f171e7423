"""The timing of models with experts, with a tiny one on a CPU: what is counted, and that nothing stays."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.gpu import moe_models
from benchmarks.gpu.moe_shapes import MOE_SHAPES, QWEN3_30B_A3B, expert_sizes
from benchmarks.gpu.shapes import Shape, write_model
from octavo.weights.shapes import expected_shapes
from tests.gpu_bench.tiny_shape import load_tiny

TINY = Shape(
    "tiny-moe",
    {
        **QWEN3_30B_A3B.config,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "moe_intermediate_size": 12,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [0],
        "vocab_size": 4001,
        "bos_token_id": None,
        "eos_token_id": None,
    },
)


def test_a_step_reads_all_but_the_experts_that_nobody_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moe_models, "TIMED_STEPS", 5)
    engine = load_tiny(write_model(TINY, tmp_path), {"native_kernels": False})  # as on a GPU
    found = moe_models.measure(engine, TINY, 1e9, (1, 5))
    assert not engine.is_busy
    shapes = expected_shapes(dict(TINY.config))
    assert shapes is not None
    floats = sum(map(math.prod, shapes.values()))
    embedding = 4001 * 32
    assert found["weight_bytes"] == 4 * (floats - embedding)
    alone, crowd = found["batch1"], found["batch5"]
    assert alone["experts_touched_per_layer"] == 2 <= crowd["experts_touched_per_layer"] <= 6
    unread = 2 * (6 - 2) * 4 * 3 * 32 * 12  # two layers with experts, four of six not chosen, three matrices
    kv = 2 * 3 * 2 * 8 * 4
    tokens = (alone["bytes"] - (found["weight_bytes"] - unread)) / kv
    assert moe_models.PROMPT_TOKENS < tokens < moe_models.PROMPT_TOKENS + 30
    assert alone["of_limit"] == pytest.approx(alone["bytes"] / 1e9 * 1e3 / alone["ms_per_step"])


def test_shapes_are_those_of_the_models() -> None:
    shapes = expected_shapes(dict(QWEN3_30B_A3B.config))
    assert shapes is not None
    parameters = sum(map(math.prod, shapes.values()))
    assert 30.4e9 < parameters < 30.6e9
    sizes = {name: expert_sizes(shape.config) for name, shape in MOE_SHAPES.items()}
    active = parameters - 48 * 120 * sizes["qwen3-30b-a3b"].expert_bytes / 2
    assert 3.3e9 < active < 3.4e9
    assert sizes["deepseek-v2-lite"].num_experts == 64
