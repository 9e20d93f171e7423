"""Every GGUF block type against the `gguf` package, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES

from octavo.weights.gguf import dequant
from octavo.weights.gguf.dequant import BLOCK_TYPES, OTHER_TYPES, BlockType

TYPES = sorted(BLOCK_TYPES.items())
IDS = [kind.name for _, kind in TYPES]


def random_blocks(kind: BlockType, num_blocks: int, seed: int = 0) -> np.ndarray:
    """Bytes of every value: scales may be subnormal, infinite or not a number."""
    return np.random.default_rng(seed).integers(0, 256, (num_blocks, kind.block_bytes), dtype=np.uint8)


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == theirs.dtype == np.float32
    both_nan = np.isnan(ours) & np.isnan(theirs)
    different = (ours.view(np.uint32) != theirs.view(np.uint32)) & ~both_nan
    assert not different.any(), f"{different.sum()} of {ours.size} weights differ"


@pytest.mark.parametrize(("type_id", "kind"), TYPES, ids=IDS)
def test_equals_the_reference_bit_for_bit(type_id: int, kind: BlockType) -> None:
    blocks = random_blocks(kind, 3000)
    out = np.empty(3000 * kind.block_size, dtype=np.float32)
    dequant.dequantize(blocks, kind, out)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(type_id))
    same_bits(out, np.ascontiguousarray(theirs).reshape(-1))


@pytest.mark.parametrize(("type_id", "kind"), TYPES, ids=IDS)
def test_chunks_join_without_seams(type_id: int, kind: BlockType, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = random_blocks(kind, 37, seed=1)
    whole = np.empty(37 * kind.block_size, dtype=np.float32)
    dequant.dequantize(blocks, kind, whole)
    monkeypatch.setattr(dequant, "CHUNK_WEIGHTS", 5 * kind.block_size)
    pieces = np.empty_like(whole)
    dequant.dequantize(blocks, kind, pieces)
    same_bits(pieces, whole)
    starts = []
    for start, weights in dequant.iter_dequantized(blocks, kind):
        starts.append(start)
        same_bits(weights, whole[start : start + len(weights)])
    assert starts == list(range(0, whole.size, 5 * kind.block_size))


@pytest.mark.parametrize(("type_id", "kind"), TYPES, ids=IDS)
def test_sizes_and_names_are_those_of_the_format(type_id: int, kind: BlockType) -> None:
    known = gguf.GGMLQuantizationType(type_id)
    assert known.name == kind.name
    assert GGML_QUANT_SIZES[known] == (kind.block_size, kind.block_bytes)


def test_names_of_other_types_are_those_of_the_format() -> None:
    for type_id, name in OTHER_TYPES.items():
        assert gguf.GGMLQuantizationType(type_id).name == name
