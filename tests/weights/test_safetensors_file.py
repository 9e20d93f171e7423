"""safetensors headers that lie, end early or are damaged; and honest ones, without a copy."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from crafted import safetensors_bytes
from lies import HEADER_LENGTHS, SAFETENSORS_HEADERS, SMALL, entry
from safetensors.torch import load_file, save_file

from octavo.base.errors import ModelFileError
from octavo.weights.safetensors import DTYPES, SafetensorsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def refused(path: Path, data: bytes, *words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        SafetensorsFile(path)
    for word in words:
        assert word in caught.value.message


def test_all_types_equal_the_safetensors_package(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, (3, 5), generator=generator).to(getattr(torch, torch_name))
        for name, (_, torch_name) in DTYPES.items()
    }
    tensors["empty"] = torch.empty(0, 4)
    tensors["scalar"] = torch.tensor(1.5)
    save_file(tensors, path)
    file = SafetensorsFile(path)
    for name, tensor in load_file(path).items():
        loaded = file.load(name)
        assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(loaded.float(), tensor.float()), name


def test_tensors_are_views_without_a_warning(path: Path) -> None:
    save_file({"a": torch.arange(8.0)}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = SafetensorsFile(path), SafetensorsFile(path)
        assert first.load("a").data_ptr() == first.load("a").data_ptr()
        kept = second.load("a")
    del first, second
    assert kept.tolist() == list(range(8))


def test_unaligned_tensors_are_copied(path: Path) -> None:
    data = b"\1" + struct.pack("<ff", 1.5, -2.0)
    header = {"odd": entry([1], 0, 1, "U8"), "floats": entry([2], 1, 9)}
    path.write_bytes(safetensors_bytes(header, data))
    assert SafetensorsFile(path).load("floats").tolist() == [1.5, -2.0]


def test_bool_bytes_become_true_or_false(path: Path) -> None:
    path.write_bytes(safetensors_bytes({"b": entry([3], 0, 3, "BOOL")}, b"\0\1\xff"))
    assert SafetensorsFile(path).load("b").tolist() == [False, True, True]


def test_every_truncation_is_refused(path: Path) -> None:
    whole = safetensors_bytes(SMALL, bytes(22))
    for length in range(len(whole)):
        refused(path, whole[:length])
    refused(path, whole + b"\0", "no tensor")


@pytest.mark.parametrize("flip", [1 << bit for bit in range(8)] + [0xFF])
def test_every_header_flip_is_refused_or_stays_in_bounds(path: Path, flip: int) -> None:
    whole = safetensors_bytes(SMALL, bytes(22))
    refusals = 0
    for position in range(len(whole) - 22):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
        try:
            file = SafetensorsFile(path)
        except ModelFileError:
            refusals += 1
            continue
        for name, tensor in file.tensors.items():
            assert tensor.start + tensor.num_bytes <= len(whole)
            assert file.load(name).numel() == file.load(name).count_nonzero() + (file.load(name) == 0).sum()
    assert refusals > len(whole) // 3


@pytest.mark.parametrize("length", HEADER_LENGTHS)
def test_header_length_lies(path: Path, length: int) -> None:
    refused(path, safetensors_bytes(SMALL, bytes(22), length=length))


@pytest.mark.parametrize(("header", "words"), SAFETENSORS_HEADERS)
def test_header_lies(path: Path, header: Any, words: list[str]) -> None:
    refused(path, safetensors_bytes(header, bytes(22)), "model.safetensors", *words)


def test_a_million_tensors_are_refused(path: Path) -> None:
    one = json.dumps(entry([0], 0, 0, "U8"))
    pieces = (f'"{index}":{one}' for index in range(10**6))
    refused(path, safetensors_bytes(("{" + ",".join(pieces) + "}").encode(), b""), "1000000")


def test_importing_checkpoint_leaves_torch_alone() -> None:
    code = "import sys, octavo.weights.checkpoint; assert 'torch' not in sys.modules; print('clean')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "clean"
