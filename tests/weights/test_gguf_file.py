"""GGUF files that lie, end early or are damaged: always ModelFileError, never anything else."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from crafted import (
    LLAMA_KEYS,
    VOCAB,
    Info,
    changed,
    gguf_bytes,
    llama_tensors,
    write_gguf,
)
from lies import ALIGNMENTS, GGUF_HEADERS, GGUF_TENSORS, GGUF_VALUES, LIAR, SIZES

from octavo.base.errors import ModelFileError
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.gguf import cursor
from octavo.weights.gguf.reader import GGUFFile


def refused(path: Path, data: bytes, *words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(path)
    for word in words:
        assert word in caught.value.message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


def test_reads_what_the_gguf_package_writes(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    values: dict[str, Any] = {
        "a.u8": 200, "a.i64": -5, "a.f64": 0.1, "a.bool": True, "a.text": "grüße", "a.words": ["x", "", "ü"],
        "a.numbers": [1, -2, 3], "a.nested": [[1, 2], [3]],
    }  # fmt: skip
    writer.add_uint8("a.u8", 200)
    writer.add_key_value("a.i64", -5, gguf.GGUFValueType.INT64)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "grüße")
    writer.add_array("a.words", ["x", "", "ü"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.nested", [[1, 2], [3]])
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.add_tensor("plain", plain)
    packed = gguf.quants.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    file = GGUFFile(path)
    assert {key: file.metadata[key] for key in values} == values
    assert file.tensors["plain"].shape == (3, 4)
    assert file.tensors["packed"].shape == (2, 64)
    assert file.tensors["packed"].kind.name == "Q8_0"
    assert file.packed("plain").tobytes() == plain.tobytes()
    assert file.packed("packed").tobytes() == packed.tobytes()
    assert not file.packed("plain").flags.writeable


SMALL_KEYS = LLAMA_KEYS | {"llama.block_count": 1, "tokenizer.ggml.tokens": ["a", "b"]}


def test_every_truncation_is_refused(path: Path) -> None:
    whole = gguf_bytes(SMALL_KEYS, llama_tensors(layers=1))
    path.write_bytes(whole)
    last = max(tensor.start + tensor.num_bytes for tensor in GGUFFile(path).tensors.values())
    header = min(tensor.start for tensor in GGUFFile(path).tensors.values())
    for length in [*range(header + 1), *range(header + 1, last, 97), last - 1]:
        refused(path, whole[:length])
    path.write_bytes(whole[:last])
    assert open_checkpoint(path).tensor_names()


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_header_flip_is_refused_or_stays_in_bounds(path: Path, flip: int) -> None:
    whole = gguf_bytes(SMALL_KEYS, llama_tensors(layers=1))
    path.write_bytes(whole)
    header = min(tensor.start for tensor in GGUFFile(path).tensors.values())
    outcomes = {"refused": 0, "loaded": 0}
    for position in range(header):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
        try:
            checkpoint = open_checkpoint(path)
        except ModelFileError:
            outcomes["refused"] += 1
            continue
        outcomes["loaded"] += 1
        for name in checkpoint.tensor_names():
            assert checkpoint.load(name).shape == checkpoint.shape(name)
    assert outcomes["refused"] > header // 4
    assert outcomes["loaded"] > 0


@pytest.mark.parametrize(("change", "words"), GGUF_HEADERS)
def test_header_lies(path: Path, change: dict[str, Any], words: list[str]) -> None:
    refused(path, gguf_bytes(LLAMA_KEYS, llama_tensors(), **change), *words)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_alignment_must_be_a_sane_power_of_two(path: Path, alignment: Any) -> None:
    value = struct.pack("<Ii", 5, alignment) if alignment == -8 else alignment
    keys = LLAMA_KEYS | {"general.alignment": value}
    refused(path, gguf_bytes(keys, llama_tensors()), "general.alignment")


def test_another_alignment_is_honoured(path: Path) -> None:
    keys = LLAMA_KEYS | {"general.alignment": 64}
    path.write_bytes(gguf_bytes(keys, llama_tensors(), alignment=64))
    for name, tensor in GGUFFile(path).tensors.items():
        assert tensor.start % 64 == 0, name
    data = gguf_bytes(keys, changed(llama_tensors(), "blk.0.attn_k.weight", offset=32), alignment=64)
    refused(path, data, "blk.0.attn_k.weight", "32")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dimension", [0, 1])
def test_impossible_dimensions(path: Path, size: int, dimension: int) -> None:
    shape = (size, 32) if dimension == 0 else (16, size)
    tensors = changed(llama_tensors(), LIAR, shape=shape, data=b"\0" * 2048)
    refused(path, gguf_bytes(LLAMA_KEYS, tensors), LIAR)


def test_products_that_overflow_64_bits(path: Path) -> None:
    shape = (2**32, 2**31, 2, 2**2)
    tensors = changed(llama_tensors(), LIAR, shape=shape, data=b"\0" * 2048)
    refused(path, gguf_bytes(LLAMA_KEYS, tensors), LIAR)


@pytest.mark.parametrize("count", [0, 5, 2**32 - 1])
def test_number_of_dimensions(path: Path, count: int) -> None:
    tensors = changed(llama_tensors(), LIAR, num_dimensions=count)
    refused(path, gguf_bytes(LLAMA_KEYS, tensors), LIAR, str(count))


@pytest.mark.parametrize(("values", "words"), GGUF_TENSORS)
def test_tensor_lies(path: Path, values: dict[str, Any], words: list[str]) -> None:
    tensors = changed(llama_tensors(), LIAR, data=b"\0" * 2048, **values)
    refused(path, gguf_bytes(LLAMA_KEYS, tensors), LIAR, *words)


def test_bytes_that_belong_to_nothing(path: Path) -> None:
    """A tensor of another type takes less room than it had."""
    for name in (LIAR, "blk.1.ffn_down.weight"):
        data = gguf_bytes(LLAMA_KEYS, llama_tensors())
        at = data.index(name.encode()) + len(name) + 4 + 2 * 8
        assert data[at : at + 4] == bytes(4)
        refused(path, data[:at] + b"\1" + data[at + 1 :], name, "belong to nothing")


def test_names_twice(path: Path) -> None:
    refused(
        path,
        gguf_bytes(LLAMA_KEYS, [*llama_tensors(), Info("output_norm.weight", (32,))]),
        "output_norm",
        "twice",
    )
    pairs = [*LLAMA_KEYS.items(), ("llama.block_count", 2)]
    refused(path, gguf_bytes(pairs, llama_tensors()), "llama.block_count", "twice")


@pytest.mark.parametrize("value", GGUF_VALUES)
def test_value_lies(path: Path, value: bytes) -> None:
    refused(path, gguf_bytes(LLAMA_KEYS | {"a.lie": value}, llama_tensors()), "a.lie")


def test_array_items_have_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "MAX_ARRAY_ITEMS", VOCAB + 10)
    write_gguf(path, LLAMA_KEYS | {"a.few": [1] * 10})
    assert GGUFFile(path).metadata["a.few"] == [1] * 10
    refused(path, gguf_bytes(LLAMA_KEYS | {"a.many": [1] * 11}, llama_tensors()), "a.many")


@pytest.mark.parametrize("key", ["", "nul\0", "line\n"])
def test_keys_must_be_printable(path: Path, key: str) -> None:
    refused(path, gguf_bytes(LLAMA_KEYS | {key: 1}, llama_tensors()), "name")


def test_unaligned_plain_tensors_load(path: Path) -> None:
    """Tensors aligned to 8 bytes in the file are views whatever the header's length."""
    keys = LLAMA_KEYS | {"general.alignment": 8}
    path.write_bytes(gguf_bytes(keys, llama_tensors(), alignment=8))
    checkpoint = open_checkpoint(path)
    for name in checkpoint.tensor_names():
        assert torch.isfinite(checkpoint.load(name).float()).all()
