"""The table of GGUF types, and dequantisation to float32 in chunks.

Results equal the format's reference arithmetic bit for bit: the order of multiplication and addition in
`blocks32.py`, `blocks256.py` and `blocks_grid.py` is part of the contract. A new type is a line here and a
function there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from octavo.weights.gguf import blocks32, blocks256, blocks_grid
from octavo.weights.gguf.bits import Bytes, Floats

CHUNK_WEIGHTS = 128 * 1024
"""Weights worked on at a time: the intermediate arrays of a chunk stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """How one GGUF type packs weights."""

    name: str
    block_size: int
    """Weights per block."""
    block_bytes: int
    unpack: Callable[[Bytes, Floats], None]
    """(blocks [B, block_bytes], out [B, block_size]): writes every weight."""


def _line(name: str, block_size: int, block_bytes: int, unpack: Callable[[Bytes, Floats], None]) -> BlockType:
    return BlockType(name=name, block_size=block_size, block_bytes=block_bytes, unpack=unpack)


BLOCK_TYPES: dict[int, BlockType] = {
    0: _line("F32", 1, 4, blocks32.f32),
    1: _line("F16", 1, 2, blocks32.f16),
    2: _line("Q4_0", 32, 18, blocks32.q4_0),
    3: _line("Q4_1", 32, 20, blocks32.q4_1),
    6: _line("Q5_0", 32, 22, blocks32.q5_0),
    7: _line("Q5_1", 32, 24, blocks32.q5_1),
    8: _line("Q8_0", 32, 34, blocks32.q8_0),
    10: _line("Q2_K", 256, 84, blocks256.q2_k),
    11: _line("Q3_K", 256, 110, blocks256.q3_k),
    12: _line("Q4_K", 256, 144, blocks256.q4_k),
    13: _line("Q5_K", 256, 176, blocks256.q5_k),
    14: _line("Q6_K", 256, 210, blocks256.q6_k),
    16: _line("IQ2_XXS", 256, 66, blocks_grid.iq2_xxs),
    17: _line("IQ2_XS", 256, 74, blocks_grid.iq2_xs),
    18: _line("IQ3_XXS", 256, 98, blocks_grid.iq3_xxs),
    19: _line("IQ1_S", 256, 50, blocks_grid.iq1_s),
    20: _line("IQ4_NL", 32, 18, blocks32.iq4_nl),
    21: _line("IQ3_S", 256, 110, blocks_grid.iq3_s),
    22: _line("IQ2_S", 256, 82, blocks_grid.iq2_s),
    23: _line("IQ4_XS", 256, 136, blocks256.iq4_xs),
    29: _line("IQ1_M", 256, 56, blocks_grid.iq1_m),
    30: _line("BF16", 1, 2, blocks32.bf16),
    34: _line("TQ1_0", 256, 54, blocks256.tq1_0),
    35: _line("TQ2_0", 256, 66, blocks256.tq2_0),
    39: _line("MXFP4", 32, 17, blocks32.mxfp4),
}
"""ggml type id -> how to read it."""

OTHER_TYPES: dict[int, str] = {
    9: "Q8_1",
    15: "Q8_K",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    40: "NVFP4",
}
"""Types that exist but are not read here: only their names, for error messages."""


def iter_dequantized(packed: Bytes, kind: BlockType) -> Iterator[tuple[int, Floats]]:
    """Yield (index of the first weight, weights) chunk by chunk; the array is reused for the next chunk."""
    blocks_BX = packed.reshape(-1, kind.block_bytes)
    step = max(1, CHUNK_WEIGHTS // kind.block_size)
    room_BW = np.empty((min(step, len(blocks_BX)), kind.block_size), dtype=np.float32)
    for start in range(0, len(blocks_BX), step):
        chunk_BX = blocks_BX[start : start + step]
        out_BW = room_BW[: len(chunk_BX)]
        _unpack(kind, chunk_BX, out_BW)
        yield start * kind.block_size, out_BW.reshape(-1)


def dequantize(packed: Bytes, kind: BlockType, out: Floats) -> None:
    """Write the weights of `packed` (uint8, any shape, whole blocks) into the contiguous array `out`."""
    blocks_BX = packed.reshape(-1, kind.block_bytes)
    out_BW = out.reshape(-1, kind.block_size)
    assert len(blocks_BX) == len(out_BW), "the output has room for exactly the blocks given"
    step = max(1, CHUNK_WEIGHTS // kind.block_size)
    for start in range(0, len(blocks_BX), step):
        _unpack(kind, blocks_BX[start : start + step], out_BW[start : start + step])


def _unpack(kind: BlockType, blocks_BX: Bytes, out_BW: Floats) -> None:
    # Hostile scales may overflow; the infinities are then the right answer.
    with np.errstate(all="ignore"):
        kind.unpack(blocks_BX, out_BW)
