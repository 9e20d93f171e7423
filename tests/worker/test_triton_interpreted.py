"""The GPU path of a worker, its kernels interpreted on the CPU: steps of every shape equal transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from octavo.attention.backends.triton import TritonAttention
from octavo.attention.backends.triton_latent import TritonLatentAttention
from octavo.attention.contract import AttentionBackend, Capability
from octavo.layers import linear, product
from octavo.layers.placement import Placement
from octavo.ops.contract import Op
from octavo.worker import worker
from octavo.worker.extras.contract import GivenInputs
from octavo.worker.forward import Forward
from octavo.worker.step_batch import StepBatch
from octavo.worker.step_buffers import StepBounds
from tests.interpreted_triton import mend_interpreter
from tests.worker.step_driver import Driver, make_model, random_tokens

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="runs natively there")


MAMBA2 = {
    "layer_types": ["linear_attention", "full_attention"],
    "shared_intermediate_size": 20,
    "num_local_experts": 0,
    "mamba_n_heads": 4,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "partial_rotary_factor": 0.5,
    "mlp_only_layers": [0, 1],
    "initializer_range": 0.15,
}
SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 20,
    "head_dim": 8,
    "num_attention_heads": 4,
    "vocab_size": 40,
}


DEEPSEEK: dict[str, Any] = {
    "kv_lora_rank": 12,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 12,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_group": 3,
    "topk_group": 2,
    "first_k_dense_replace": 1,
}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    mend_interpreter()

    def provider(op: Op[..., Any], device: torch.device) -> Any:
        return (
            op.providers.load("cuda") if "cuda" in op.providers and op.name != "choose_tokens" else op.plain
        )

    def product_on(placement: Placement) -> product.Product:
        kind = product.InvariantProduct if placement.deterministic else product.StreamingProduct
        return kind(placement)

    monkeypatch.setattr(Op, "on", provider)
    monkeypatch.setattr(linear, "product_on", product_on)

    def backend(needs: frozenset[Capability], **_: Any) -> type[AttentionBackend]:
        return TritonLatentAttention if Capability.LATENT in needs else TritonAttention

    monkeypatch.setattr(worker, "choose_backend", backend)
    monkeypatch.setattr(TritonAttention, "capabilities", frozenset(Capability))


@pytest.mark.parametrize(
    ("family", "deterministic"),
    [
        ("qwen3", False),
        pytest.param("deepseek_v3", True, marks=pytest.mark.slow),
        pytest.param("deepseek_v3", False, marks=pytest.mark.slow),
        pytest.param("granitemoehybrid", False, marks=pytest.mark.slow),
        pytest.param("granitemoehybrid", True, marks=pytest.mark.slow),
        pytest.param("qwen3_next", False, marks=pytest.mark.slow),
        pytest.param("qwen3_next", True, marks=pytest.mark.slow),
        pytest.param("mistral", False, marks=pytest.mark.slow),
        pytest.param("llama", False, marks=pytest.mark.slow),
        pytest.param("llama", True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("as_on_a_gpu")
def test_mixed_steps_equal_transformers(tmp_path: Path, family: str, deterministic: bool) -> None:
    sizes = dict(SIZES)
    sizes |= {
        "deepseek_v3": DEEPSEEK,
        "granitemoehybrid": MAMBA2,
        "mistral": {"sliding_window": 11},
        "qwen3_next": DELTA,
    }.get(family, {})
    path, reference = make_model(tmp_path, family, **sizes)
    driver = Driver(path, num_rows=6, max_model_len=80, num_blocks=30, deterministic=deterministic)
    lengths = {0: 3, 1: 21, 2: 9, 3: 1, 4: 12, 5: 7}
    for row in (0, 1, 2):
        driver.add(row, random_tokens(lengths[row], seed=row, vocab_size=40))
    driver.step({0: 3, 1: 10, 2: 9})
    driver.step({0: 1, 1: 11, 2: 1})
    for row in (3, 4, 5):
        driver.add(row, random_tokens(lengths[row], seed=row, vocab_size=40))
    driver.step({0: 1, 3: 1, 4: 12, 5: 7, 1: 1})
    driver.step(dict.fromkeys(range(6), 1))
    driver.step({2: 1})
    check(driver, lengths, reference)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {}),
        pytest.param("deepseek_v2", DEEPSEEK, marks=pytest.mark.slow),
        pytest.param("granitemoehybrid", MAMBA2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("as_on_a_gpu")
def test_steps_in_larger_bounds_as_captured_graphs_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, overrides: dict[str, Any]
) -> None:
    """As many places for single tokens as for sequences, and more for tokens than the step has."""

    def run(forward: Forward, batch: StepBatch, given: Sequence[GivenInputs]) -> torch.Tensor:
        assert not given
        has_chunks = batch.num_singles < len(batch.rows)
        bounds = StepBounds(40 if has_chunks else 8, 8, 8, has_chunks, False)
        return forward.run_bounded(bounds, None)[: batch.total_tokens]

    monkeypatch.setattr(Forward, "run", run)
    path, reference = make_model(tmp_path, family, **SIZES, **overrides)
    driver = Driver(path, num_rows=8, max_model_len=80, num_blocks=30)
    lengths = {0: 1, 1: 17, 2: 2, 3: 5}
    for row, length in lengths.items():
        driver.add(row, random_tokens(length, seed=row, vocab_size=40))
    driver.step(lengths)
    driver.step(dict.fromkeys(lengths, 1))
    driver.step({1: 1, 3: 1})
    check(driver, lengths, reference)


def check(driver: Driver, lengths: dict[int, int], reference: Any) -> None:
    """Tokens and the logits of all positions are the reference's."""
    for row, length in lengths.items():
        tokens = driver.tokens[row]
        with torch.no_grad():
            logits = reference(torch.tensor([tokens[:-1]])).logits[0]
        torch.testing.assert_close(driver.recorder.of(row), logits, atol=1e-4, rtol=1e-4)
        assert tokens[length:] == logits[length - 1 :].argmax(-1).tolist()
