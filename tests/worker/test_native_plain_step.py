"""Steps of the native kernels on plain weights: narrow ones stay narrow, and count as what they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.base.native import native_kernels
from octavo.worker.forward import Forward
from octavo.worker.native_forward import NativeForward
from tests.worker.step_driver import Driver, make_model, random_tokens
from tests.worker.test_runner_equals_transformers import assert_equal

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")


def filled(path: Path, **options: Any) -> Driver:
    """Two sequences, computed in two steps."""
    driver = Driver(path, **options)
    for row, length in enumerate((50, 7)):
        driver.add(row, random_tokens(length, seed=row))
    driver.step({0: 20, 1: 7})
    driver.step({0: 30})
    return driver


def logits(driver: Driver) -> torch.Tensor:
    return torch.cat([driver.recorder.of(row) for row in range(2)])


def stored_in(dtype: torch.dtype, folder: Path) -> tuple[Path, Any]:
    """A checkpoint in a narrow type, and the model in float32 with its numbers."""
    path, model = make_model(folder, tie_word_embeddings=False)
    copy.deepcopy(model).to(dtype).save_pretrained(path)
    for parameter in model.parameters():
        parameter.data = parameter.to(dtype).float()
    return path, model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_stay_narrow_and_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    path, reference = stored_in(dtype, tmp_path / "narrow")
    driver = filled(path, native_threads=2, keeps_packed=False)
    assert type(driver.runner._forward) is NativeForward
    for row in range(2):
        assert_equal(driver, row, reference)
    wide, _ = make_model(tmp_path / "wide", tie_word_embeddings=False)
    takes = [Driver(each, native_threads=2).facts.memory_bytes["weights"] for each in (path, wide)]
    assert takes[0] < 0.55 * takes[1]


def test_without_native_kernels_torch_computes(tmp_path: Path) -> None:
    path, reference = stored_in(torch.bfloat16, tmp_path)
    driver = filled(path)
    assert type(driver.runner._forward) is Forward
    for row in range(2):
        assert_equal(driver, row, reference)


def test_a_narrow_dtype_rounds_the_weights_and_nothing_else(tmp_path: Path) -> None:
    """As a checkpoint whose matrices were rounded before."""
    path, model = make_model(tmp_path / "wide", tie_word_embeddings=False)
    rounded = filled(path, native_threads=1, keeps_packed=False, dtype="bfloat16")
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.bfloat16().float()
    model.save_pretrained(tmp_path / "rounded")
    exact = filled(tmp_path / "rounded", native_threads=1, keeps_packed=False)
    assert torch.equal(logits(rounded), logits(exact))
