"""Where tests find the real default model, and tiny model folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from crafted import TINY_CONFIG
from safetensors.torch import save_file

from octavo.base.env import cache_dir
from octavo.weights.shapes import expected_shapes


@pytest.fixture(scope="session")
def real_gguf() -> Path:
    """The default model's file, from OCTAVO_TEST_GGUF or the cache."""
    named = os.environ.get("OCTAVO_TEST_GGUF")
    found = [Path(named)] if named else sorted(cache_dir().rglob("SmolLM2-135M-Instruct*.gguf"))
    if not found or not found[0].is_file():
        pytest.skip(
            "the default model is not in the cache; `octavo pull` fetches it, or set OCTAVO_TEST_GGUF"
        )
    return found[0]


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


def write_config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG | changes))
