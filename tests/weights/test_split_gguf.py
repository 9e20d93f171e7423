"""Models that were split into several GGUF files are read as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.gguf.part_names import model_names, part_names
from octavo.weights.sources.local import check_local
from tests.weights.crafted import LLAMA_KEYS, gguf_bytes, llama_tensors, write_gguf

NAMES = part_names("Tiny-Q8_0-00002-of-00003.gguf")


def split(folder: Path, **changes: Any) -> Path:
    """The first part has no tensors, as llama-gguf-split can make it. Returns the second."""
    tensors, folder = llama_tensors(), folder / "split"
    folder.mkdir()
    for number, (name, own) in enumerate(zip(NAMES, ([], tensors[:7], tensors[7:]), strict=True)):
        keys = {"split.no": number, "split.count": 3, "split.tensors.count": len(tensors), **changes}
        (folder / name).write_bytes(gguf_bytes({**LLAMA_KEYS, **keys} if number == 0 else keys, own))
    return folder / NAMES[1]


def test_parts_are_one_model(tmp_path: Path) -> None:
    whole = open_checkpoint(write_gguf(tmp_path / "whole.gguf"))
    part = split(tmp_path)
    for path in (part, part.with_name(NAMES[0]), check_local(part.parent), part.parent):
        joined = open_checkpoint(path)
        assert joined.name == "Tiny" and joined.config == whole.config
        assert joined.tensor_names() == whole.tensor_names()
    shapes = [joined.load(name).shape for name in joined.tensor_names()]
    assert shapes == [whole.load(name).shape for name in whole.tensor_names()]
    target = torch.zeros(joined.shape("model.norm.weight"))
    joined.upload([("model.norm.weight", target)])
    assert torch.equal(target, joined.load("model.norm.weight"))
    stored = joined.stored_matrix("model.layers.1.mlp.gate_proj.weight")
    assert stored is not None
    kept = joined.load("model.layers.1.mlp.gate_proj.weight").clone()
    stored.release()
    assert torch.equal(joined.load("model.layers.1.mlp.gate_proj.weight"), kept)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    part = split(tmp_path)
    part.with_name(NAMES[2]).rename(tmp_path / "away.gguf")
    with pytest.raises(
        ModelFileError, match=f"'{NAMES[1]}' is one of 3 parts of a model; '{NAMES[2]}' is not"
    ):
        open_checkpoint(part)
    with pytest.raises(ModelFileError, match=r"split.no 2 and split.count 3, .* it is part 1 of 1"):
        open_checkpoint(tmp_path / "away.gguf")
    part.with_name(NAMES[2]).write_bytes(part.read_bytes())
    with pytest.raises(ModelFileError, match=r"split.no 1 and split.count 3, .* it is part 3 of 3"):
        open_checkpoint(part)


@pytest.mark.parametrize("stated", [7, 21])
def test_tensors_are_counted(tmp_path: Path, stated: int) -> None:
    part = split(tmp_path, **{"split.tensors.count": stated})
    with pytest.raises(
        ModelFileError, match=rf"20 tensors with 20 names, and split.tensors.count is {stated}"
    ):
        open_checkpoint(part)


def test_which_files_are_models() -> None:
    names = [
        "a-00002-of-00002.gguf",
        "a-00001-of-00002.gguf",
        "q4/b.gguf",
        "mmproj-F16.gguf",
        "x/MMPROJ.gguf",
    ]
    assert model_names([*names, "a.json"]) == ["a-00001-of-00002.gguf", "q4/b.gguf"]
    assert part_names("a-00003-of-00002.gguf") == ["a-00003-of-00002.gguf"]
    assert part_names("a-00001-of-09999.gguf") == ["a-00001-of-09999.gguf"]
