"""Checkpoint.upload of every format: the same numbers as `load`, wherever and in whatever type they go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from octavo.base.errors import ModelFileError
from octavo.weights import transfer as engine
from octavo.weights.checkpoint import Checkpoint, open_checkpoint
from tests.weights.crafted import LLAMA_KEYS, llama_tensors, write_config, write_gguf


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUFFER_BYTES", 512)
    monkeypatch.setattr(engine, "_usable_cpus", lambda: 4)


def uploaded(
    checkpoint: Checkpoint, dtype: torch.dtype, *, transposed: bool = False
) -> dict[str, torch.Tensor]:
    """All tensors through `upload`, into row-major or transposed memory full of NaN."""
    targets = {}
    for name in checkpoint.tensor_names():
        shape = checkpoint.shape(name)
        room = torch.full(shape[::-1] if transposed else shape, float("nan"), dtype=dtype)
        targets[name] = room.permute(*reversed(range(room.dim()))) if transposed else room
    checkpoint.upload(list(targets.items()))
    return targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
def test_safetensors(tiny_folder: Path, dtype: torch.dtype, transposed: bool) -> None:
    checkpoint = open_checkpoint(tiny_folder)
    for name, tensor in uploaded(checkpoint, dtype, transposed=transposed).items():
        assert torch.equal(tensor, checkpoint.load(name, dtype)), name


def test_shards_and_stored_types(
    tmp_path: Path, tiny_weights: dict[str, torch.Tensor], write_index: Callable[..., None]
) -> None:
    write_config(tmp_path)
    types = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    weights = {name: tensor.to(types[i % 4]) for i, (name, tensor) in enumerate(tiny_weights.items())}
    write_index(tmp_path, weights, 3)
    checkpoint = open_checkpoint(tmp_path)
    for name, tensor in uploaded(checkpoint, torch.float32).items():
        assert torch.equal(tensor, weights[name].float()), name


def test_one_tensor_twice(tiny_folder: Path) -> None:
    checkpoint = open_checkpoint(tiny_folder)
    name = "model.embed_tokens.weight"
    first, second = (torch.empty(checkpoint.shape(name)) for _ in range(2))
    checkpoint.upload([(name, first), (name, second)])
    assert torch.equal(first, second)
    assert torch.equal(first, checkpoint.load(name))


def test_an_unknown_name(tiny_folder: Path) -> None:
    with pytest.raises(ModelFileError, match="other"):
        open_checkpoint(tiny_folder).upload([("other", torch.empty(1))])


def test_a_file_that_changed_its_size(tiny_folder: Path) -> None:
    checkpoint = open_checkpoint(tiny_folder)
    file = tiny_folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 4)
    with pytest.raises(
        ModelFileError, match=r"model\.safetensors' had \d+ bytes when it was checked and has"
    ):
        uploaded(checkpoint, torch.float32)


def test_a_file_that_shrinks_while_it_is_read(tiny_folder: Path) -> None:
    checkpoint = open_checkpoint(tiny_folder)
    [file] = set(checkpoint._files.values())  # type: ignore[attr-defined]
    with file.opened() as descriptor:
        os.truncate(tiny_folder / "model.safetensors", 1000)
        name = max(file.tensors, key=lambda name: file.tensors[name].start)
        pieces = list(file.pieces(name, torch.empty(checkpoint.shape(name)), descriptor))
        with pytest.raises(ModelFileError, match="too early"):
            engine.transfer(pieces)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_gguf(tmp_path: Path, dtype: torch.dtype, transposed: bool) -> None:
    """Query and key rows are stored in another order; rows are longer than a buffer."""
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", LLAMA_KEYS, llama_tensors()))
    for name, tensor in uploaded(checkpoint, dtype, transposed=transposed).items():
        assert torch.equal(tensor, checkpoint.load(name, dtype)), name


def test_the_real_gguf(real_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantised blocks, cut where rows end."""
    monkeypatch.setattr(engine, "BUFFER_BYTES", 2**18)
    checkpoint = open_checkpoint(real_gguf)
    names = [
        f"model.layers.3.{part}.weight" for part in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm")
    ]
    targets = [(name, torch.empty(checkpoint.shape(name), dtype=torch.bfloat16)) for name in names]
    checkpoint.upload(targets)
    for name, target in targets:
        assert torch.equal(target, checkpoint.load(name, torch.bfloat16)), name


def test_dummy(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="qwen3")
    checkpoint = open_checkpoint(tmp_path, "dummy")
    weights, again = (uploaded(checkpoint, torch.float32) for _ in range(2))
    for name, tensor in weights.items():
        assert torch.equal(tensor, again[name]), name
        assert torch.equal(tensor, checkpoint.load(name)), "one CPU makes the same numbers either way"
    assert weights["model.layers.0.self_attn.q_norm.weight"].unique().tolist() == [1.0]
    assert 0.015 < weights["model.layers.0.mlp.up_proj.weight"].std().item() < 0.025


def test_progress(tmp_path: Path, tiny_folder: Path) -> None:
    for load_format in ("auto", "dummy"):
        checkpoint = open_checkpoint(tiny_folder, load_format)
        seen: list[tuple[int, int]] = []
        targets: list[tuple[str, Any]] = [
            (name, torch.empty(checkpoint.shape(name))) for name in checkpoint.tensor_names()
        ]
        checkpoint.upload(targets, lambda done, total, seen=seen: seen.append((done, total)))  # type: ignore[misc]
        size = sum(target.nbytes for _, target in targets)
        assert seen[-1] == (size, size)


@pytest.fixture
def write_index() -> Callable[..., None]:
    def write(folder: Path, weights: dict[str, torch.Tensor], num_shards: int) -> None:
        import json

        names = sorted(weights)
        weight_map = {}
        for shard in range(num_shards):
            file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
            chosen = names[shard::num_shards]
            save_file({name: weights[name] for name in chosen}, folder / file)
            weight_map.update(dict.fromkeys(chosen, file))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return write
