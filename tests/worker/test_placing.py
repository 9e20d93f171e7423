"""Threads of a CPU are those that were asked for, whoever computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from octavo.config.model import ModelConfig
from octavo.worker.placing import placement_of


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [3, 1])
def test_torch_computes_with_the_threads_that_were_asked_for(count: int) -> None:
    model = ModelConfig(
        device="cpu", dtype="float32", max_model_len=64, native_kernels=False, cpu_threads=count
    )
    assert placement_of(model).native is None
    assert torch.get_num_threads() == count
