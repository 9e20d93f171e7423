"""A step in native kernels: equals transformers on plain weights, has the same bits in any company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from octavo.base.native import native_kernels
from octavo.messages.kv import KV_DTYPES
from octavo.ops.cpu.engine import TYPES as PACKABLE
from octavo.worker.forward import Forward
from octavo.worker.native_forward import NativeForward
from tests.weights.crafted import LLAMA_KEYS, Info, changed, llama_tensors, write_gguf
from tests.worker.step_driver import Driver, make_model, random_tokens
from tests.worker.test_runner_equals_transformers import CASES, assert_equal

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")


@pytest.fixture(scope="module", params=list(CASES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    family, overrides = CASES[request.param]
    return make_model(tmp_path_factory.mktemp("model"), family, **overrides)


@pytest.mark.parametrize("length", [1, 17, 100, 600])
def test_whole_prompts_equal_transformers(model: tuple[Path, Any], length: int) -> None:
    driver = Driver(model[0], native_threads=2)
    assert type(driver.runner._forward) is NativeForward
    driver.add(3, random_tokens(length))
    driver.prefill(3)
    assert_equal(driver, 3, model[1])


@pytest.mark.parametrize("block_size", [1, 8, 16, 64])
def test_a_mixed_step_equals_transformers(model: tuple[Path, Any], block_size: int) -> None:
    driver = Driver(model[0], native_threads=2, block_size=block_size, num_blocks=1200)
    for row, length in enumerate((1, 40, 130, 77)):
        driver.add(row, random_tokens(length, seed=row))
    driver.step({0: 1, 1: 33, 2: 50, 3: 77})
    driver.step({0: 1, 1: 7, 2: 80, 3: 1})
    driver.step({0: 1, 1: 1, 2: 1, 3: 1})
    for row in range(4):
        assert_equal(driver, row, model[1])


def quantized(shape: tuple[int, ...], type_id: int, seed: int) -> bytes:
    """Normal numbers packed by the `gguf` package; random bits for types that it does not pack."""
    rng = np.random.default_rng(seed)
    kind = gguf.GGMLQuantizationType(type_id)
    try:
        packed = gguf.quants.quantize(rng.normal(0, 0.2, shape).astype(np.float32), kind)
    except NotImplementedError:
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        packed = rng.integers(0, 256, (int(np.prod(shape)) // block_size, block_bytes), dtype=np.uint8)
        halves = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind.name]
        for at in halves:
            packed[:, at : at + 2] = (
                np.full(len(packed), 0.001, dtype=np.float16).view(np.uint8).reshape(-1, 2)
            )
    return np.ascontiguousarray(packed).tobytes()


WIDTHS = {"llama.embedding_length": 256, "llama.feed_forward_length": 256, "llama.context_length": 1024}
TYPES = {
    "attn_q": 3,
    "attn_k": 2,
    "attn_v": 14,
    "attn_output": 12,
    "ffn_gate": 13,
    "ffn_up": 6,
    "ffn_down": 7,
}


@pytest.fixture(scope="module")
def packed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with another type for every matrix of a layer, and a Q8_0 embedding."""
    tensors = [Info("token_embd.weight", (40, 256), 8, quantized((40, 256), 8, 0))]
    ones = np.ones(256, dtype=np.float32).tobytes()
    tensors.append(Info("output_norm.weight", (256,), 0, ones))
    for index in range(2):
        tensors += [Info(f"blk.{index}.{name}.weight", (256,), 0, ones) for name in ("attn_norm", "ffn_norm")]
        for number, (name, type_id) in enumerate(TYPES.items()):
            shape = (128 if name in ("attn_k", "attn_v") else 256, 256)
            data = quantized(shape, type_id, 10 * index + number + 1)
            tensors.append(Info(f"blk.{index}.{name}.weight", shape, type_id, data))
    return write_gguf(tmp_path_factory.mktemp("packed") / "packed.gguf", LLAMA_KEYS | WIDTHS, tensors)


def logits_of(
    path: Path, rows: dict[int, int], chunks: list[dict[int, int]], kv_dtype: str = "float32"
) -> dict[int, torch.Tensor]:
    """All logits of prompts of these lengths, computed in these steps."""
    driver = Driver(path, native_threads=2, kv_dtype=kv_dtype)
    for row, length in rows.items():
        driver.add(row, random_tokens(length, seed=row, vocab_size=40))
    for amounts in chunks:
        driver.step(amounts)
    return {row: driver.recorder.of(row) for row in rows}


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_row_has_the_same_bits_in_any_company_and_any_chunks(packed_model: Path, kv_dtype: str) -> None:
    alone = logits_of(packed_model, {1: 90}, [{1: 90}], kv_dtype)[1]
    assert torch.isfinite(alone).all()
    by_token = logits_of(packed_model, {1: 90}, [{1: 1}] * 90, kv_dtype)[1]
    assert torch.equal(by_token, alone)
    crowd = {row: 40 + 7 * row for row in range(8)} | {1: 90}
    steps = [{row: 20 + row for row in crowd}, {row: length - 20 - row for row, length in crowd.items()}]
    assert torch.equal(logits_of(packed_model, crowd, steps, kv_dtype)[1], alone)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_cached_prefix_and_a_return_give_the_same_bits(packed_model: Path, kv_dtype: str) -> None:
    driver = Driver(packed_model, native_threads=2, kv_dtype=kv_dtype)
    prompt = random_tokens(90, seed=1, vocab_size=40)
    driver.add(1, prompt)
    driver.prefill(1)
    driver.decode([1], 20)
    driver.add(2, prompt, shared=(1, 4))
    driver.prefill(2)
    driver.decode([2], 20)
    assert driver.tokens[2] == driver.tokens[1]
    assert torch.equal(driver.recorder.of(2), driver.recorder.of(1)[64:])
    driver.end(1)  # preempted: it comes back with all its tokens, which are one chunk now
    driver.add(3, driver.tokens[1][:-1], num_prompt=90)
    driver.prefill(3)
    assert driver.tokens[3] == driver.tokens[1]
    assert torch.equal(driver.recorder.of(3), driver.recorder.of(1))


@pytest.mark.parametrize(("kv_dtype", "most"), [("bfloat16", 0.03), ("float16", 0.003), ("int8", 0.06)])
def test_rounded_keys_and_values_come_close_to_exact_ones(tmp_path: Path, kv_dtype: str, most: float) -> None:
    path, _ = make_model(tmp_path)  # plain weights: nothing else is rounded
    exact, rounded = (logits_of(path, {1: 90}, [{1: 90}], kept)[1] for kept in ("float32", kv_dtype))
    assert 0 < (rounded - exact).norm() / exact.norm() < most


def test_packed_weights_come_close_to_exact_ones(packed_model: Path) -> None:
    exact = Driver(packed_model)
    exact.add(1, random_tokens(60, seed=1, vocab_size=40))
    exact.prefill(1)
    assert type(exact.runner._forward) is Forward
    packed = logits_of(packed_model, {1: 60}, [{1: 60}])[1]
    distance = (packed - exact.recorder.of(1)).norm() / exact.recorder.of(1).norm()
    assert 0 < distance < 0.05


def test_a_broken_block_is_told_and_spoils_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(quantized((32, 32), 8, 0))
    data[0:2] = b"\x00\x7e"  # a scale that is not a number
    tensors = changed(llama_tensors(), "blk.1.attn_output.weight", type_id=8, data=bytes(data))
    Driver(write_gguf(tmp_path / "broken.gguf", None, tensors), native_threads=1)
    assert "1 tensors of the checkpoint hold NaN or infinite numbers" in caplog.text
    assert "blk" not in caplog.text and "model.layers.1.self_attn.o_proj.weight" in caplog.text


def test_a_type_without_a_kernel_is_made_plain_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PACKABLE, "IQ4_NL")
    kind = gguf.GGMLQuantizationType.IQ4_NL
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    packed = np.random.default_rng(5).integers(0, 256, (64 * 32 // block_size, block_bytes), dtype=np.uint8)
    packed[:, :2] = np.full(len(packed), 0.002, dtype=np.float16).view(np.uint8).reshape(-1, 2)
    tensors = changed(llama_tensors(), "blk.0.ffn_up.weight", type_id=20, data=packed.tobytes())
    for tensor in tensors:
        if tensor.data is None:
            count = int(np.prod(tensor.shape))
            numbers = np.random.default_rng(count).normal(0, 0.2, count)
            tensor.type_id, tensor.data = 0, numbers.astype(np.float32).tobytes()
    path = write_gguf(tmp_path / "other.gguf", None, tensors)
    with caplog.at_level("INFO"):
        drivers = [Driver(path, native_threads=2, max_model_len=128), Driver(path, max_model_len=128)]
    assert "layers.0.mlp.up_proj.weight is stored as IQ4_NL, for which there is no kernel" in caplog.text
    for driver in drivers:
        driver.add(0, random_tokens(20, vocab_size=40))
        driver.prefill(0)
    native, exact = (driver.recorder.of(0) for driver in drivers)
    torch.testing.assert_close(native, exact, rtol=0, atol=1e-4)
