"""Weights on their way to a GPU: numbers, strides, types, and a speed that a CPU's detour could not reach."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from octavo.layers.slot import WeightSlot
from octavo.models.load import place_on_device
from octavo.weights.checkpoint import Checkpoint, open_checkpoint
from octavo.weights.footprint import num_parameters

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32003,
    "hidden_size": 1032,
    "intermediate_size": 2500,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
"""Odd sizes; the embedding (132 MB in float32) is longer than all staging buffers of a lane."""


def dummy(folder: Path, **changes: int) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return open_checkpoint(folder, "dummy")


def targets_of(
    checkpoint: Checkpoint, dtype: torch.dtype, *, transposed: bool = False
) -> list[tuple[str, torch.Tensor]]:
    """Room full of NaN for every tensor, just enqueued and not yet waited for."""
    targets = []
    for name in checkpoint.tensor_names():
        shape = checkpoint.shape(name)
        room = torch.empty(shape[::-1] if transposed else shape, dtype=dtype, device="cuda")
        room.fill_(float("nan"))
        targets.append((name, room.permute(*reversed(range(room.dim()))) if transposed else room))
    return targets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    shapes = dummy(path)
    types = [torch.float32, torch.bfloat16, torch.float16]
    weights = {
        name: torch.randn(shapes.shape(name)).to(types[index % 3])
        for index, name in enumerate(shapes.tensor_names())
    }
    save_file(weights, path / "model.safetensors")
    return path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("transposed", [False, True])
def test_every_number_arrives(folder: Path, dtype: torch.dtype, transposed: bool) -> None:
    checkpoint = open_checkpoint(folder)
    targets = targets_of(checkpoint, dtype, transposed=transposed)
    checkpoint.upload(targets)
    for name, target in targets:
        assert torch.equal(target.cpu(), checkpoint.load(name, dtype)), name


def test_work_on_another_stream_comes_first(folder: Path) -> None:
    """What the caller's stream still does to the targets must not undo the load."""
    checkpoint = open_checkpoint(folder)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        targets = targets_of(checkpoint, torch.bfloat16)
        checkpoint.upload(targets)
        assert all(torch.isfinite(target).all() for _, target in targets)


def test_broken_numbers_are_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    checkpoint = open_checkpoint(folder)
    weights = {name: checkpoint.load(name).clone() for name in checkpoint.tensor_names()}
    weights["model.layers.2.mlp.up_proj.weight"][7, 9] = float("inf")
    save_file(weights, tmp_path / "model.safetensors")
    spoiled = open_checkpoint(tmp_path)
    slots = [WeightSlot(name=name, target=target) for name, target in targets_of(spoiled, torch.bfloat16)]
    assert place_on_device(slots, spoiled).broken == ["model.layers.2.mlp.up_proj.weight"]


def test_dummy_weights_are_made_on_the_device(tmp_path: Path) -> None:
    """2 GB in well under a second; a CPU takes 20."""
    checkpoint = dummy(tmp_path / "large", hidden_size=4096, intermediate_size=14336, num_attention_heads=32)
    targets = targets_of(checkpoint, torch.bfloat16)
    checkpoint.upload(targets[-3:])  # the first use of a kernel loads it
    torch.cuda.synchronize()
    began = time.monotonic()
    checkpoint.upload(targets)
    torch.cuda.synchronize()
    assert time.monotonic() - began < 1.0
    assert num_parameters(checkpoint) > 0.9e9
    weights = dict(targets)
    assert weights["model.norm.weight"].unique().tolist() == [1.0]
    down = weights["model.layers.1.mlp.down_proj.weight"].float()
    assert down.std().item() == pytest.approx(0.02, rel=0.01)
    assert not torch.equal(down, weights["model.layers.2.mlp.down_proj.weight"].float())
    again = torch.empty_like(weights["model.layers.1.mlp.down_proj.weight"])
    checkpoint.upload([("model.layers.1.mlp.down_proj.weight", again)])
    assert torch.equal(down, again.float()), "the same numbers every time"
