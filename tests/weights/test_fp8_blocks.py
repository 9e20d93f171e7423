"""FP8 checkpoints with a scale for each block come back as the numbers they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from octavo.base.errors import ModelFileError
from octavo.weights import fp8_blocks
from octavo.weights.checkpoint import open_checkpoint
from tests.weights.crafted import TINY_CONFIG

BLOCK = 16
QUANTIZATION = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
NAME = "model.layers.0.mlp.up_proj.weight"


def scaled(rows: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stored numbers and scales, neither side a multiple of the block."""
    generator = torch.Generator().manual_seed(rows)
    stored = torch.randn(rows, inputs, generator=generator).mul(40).to(torch.float8_e4m3fn)
    return stored, torch.rand(-(-rows // BLOCK), -(-inputs // BLOCK), generator=generator) + 0.01


def expected(stored: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    rows, inputs = stored.shape
    factors = scales.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :inputs]
    return stored.float() * factors


def save(folder: Path, tensors: dict[str, torch.Tensor], **more: Any) -> Path:
    config = {**TINY_CONFIG, "model_type": "unknown", "num_hidden_layers": 1, **more}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": QUANTIZATION, **config}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_every_byte_is_the_number_that_torch_says() -> None:
    bytes_B = torch.arange(256, dtype=torch.uint8)
    found = torch.from_numpy(fp8_blocks._LEVELS)
    torch.testing.assert_close(
        found, bytes_B.view(torch.float8_e4m3fn).float(), equal_nan=True, rtol=0, atol=0
    )


def test_weights_come_back_times_their_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8_blocks, "ROWS_AT_ONCE", 24)
    stored, scales = scaled(70, 41)
    norm = torch.randn(41).bfloat16()
    folder = save(tmp_path / "m", {NAME: stored, f"{NAME}_scale_inv": scales, "model.norm.weight": norm})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensor_names() == ["model.norm.weight", NAME]
    assert checkpoint.shape(NAME) == (70, 41) and checkpoint.stored_dtype == "bfloat16"
    truth = expected(stored, scales)
    assert torch.equal(checkpoint.load(NAME), truth)
    assert torch.equal(checkpoint.load(NAME, torch.bfloat16), truth.bfloat16())
    assert torch.equal(checkpoint.load("model.norm.weight"), norm)
    wide = torch.zeros(41, 70)
    checkpoint.upload([(NAME, wide.t()), ("model.norm.weight", torch.empty(41))])
    assert torch.equal(wide.t(), truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_may_be_in_16_bits_as_qwen_stores_them(tmp_path: Path, dtype: torch.dtype) -> None:
    stored, scales = scaled(70, 41)
    narrow = scales.to(dtype)
    checkpoint = open_checkpoint(save(tmp_path / "m", {NAME: stored, f"{NAME}_scale_inv": narrow}))
    truth = expected(stored, narrow.float())
    assert torch.equal(checkpoint.load(NAME), truth)
    target = torch.zeros(70, 41)
    checkpoint.upload([(NAME, target)])
    assert torch.equal(target, truth)


def test_a_large_matrix_goes_up_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.weights.transfer.BUFFER_BYTES", 41 * 4 * 10)
    stored, scales = scaled(70, 41)
    checkpoint = open_checkpoint(save(tmp_path / "m", {NAME: stored, f"{NAME}_scale_inv": scales}))
    target = torch.zeros(70, 41)
    checkpoint.upload([(NAME, target)])
    assert torch.equal(target, expected(stored, scales))


@pytest.mark.parametrize(
    ("scales", "quantization", "words"),
    [
        (None, QUANTIZATION, f"{NAME}' in FP8, but no '{NAME}_scale_inv"),
        (torch.ones(5, 2), QUANTIZATION, r"\[70, 41\] and its scales \[5, 2\].*\[5, 3\] in float32"),
        (torch.ones(5, 3).double(), QUANTIZATION, "in float64"),
        (torch.ones(5, 3), {"quant_method": "fp8"}, "weight_block_size None"),
        (
            torch.ones(5, 3),
            {"quant_method": "fp8", "weight_block_size": [0, 3]},
            r"weight_block_size \[0, 3\]",
        ),
        (torch.ones(5, 3), {"quant_method": "awq"}, r"quantised \(awq\).*mxfp4 and fp8 are read"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, scales: torch.Tensor | None, quantization: dict[str, Any], words: str
) -> None:
    tensors = {NAME: scaled(70, 41)[0]}
    if scales is not None:
        tensors[f"{NAME}_scale_inv"] = scales
    with pytest.raises(ModelFileError, match=words):
        open_checkpoint(save(tmp_path / "m", tensors, quantization_config=quantization))


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.int8])
def test_scales_that_no_config_explains_are_refused(tmp_path: Path, stored: torch.dtype) -> None:
    """As in older files of ModelOpt, which says it in hf_quant_config.json."""
    tensors = {NAME: torch.ones(70, 41).to(stored), f"{NAME}_scale": torch.ones(())}
    with pytest.raises(ModelFileError, match=rf"quantised: '{NAME}' is in .* and has '{NAME}_scale'"):
        open_checkpoint(save(tmp_path / "m", tensors, quantization_config=None))
    plain = save(tmp_path / "plain", {NAME: torch.ones(70, 41).to(stored)}, quantization_config=None)
    assert open_checkpoint(plain).load(NAME, torch.float32).sum() == 70 * 41


def test_numbers_are_made_in_float32() -> None:
    """A scale may take a number out of bfloat16's fraction: it is rounded once, at the end."""
    out = np.empty((1, 2), dtype=np.float32)
    fp8_blocks.dequantize(np.array([[0x39, 0xB9]], dtype=np.uint8), np.float32([[1.0 / 3]]), 0, (1, 2), out)
    assert out.tolist() == [[np.float32(1.125) * np.float32(1 / 3), -np.float32(1.125) * np.float32(1 / 3)]]
