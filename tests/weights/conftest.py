"""Where tests find the real default model, and tiny model folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from octavo.weights.shapes import expected_shapes
from tests.weights.crafted import TINY_CONFIG, write_config


@pytest.fixture(scope="session")
def real_gguf(default_model_path: Path) -> Path:
    """The default model's file, fetched if need be."""
    return default_model_path


@pytest.fixture
def tiny_weights() -> dict[str, torch.Tensor]:
    shapes = expected_shapes(TINY_CONFIG)
    assert shapes is not None
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny_weights: dict[str, torch.Tensor]) -> Path:
    """A one-file Llama folder that a test may spoil."""
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    write_config(folder)
    save_file(tiny_weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
