"""The GGUF types whose weights are points of a grid (`ops/grids.py`): IQ1, IQ2, IQ3; 256 per block.

Every function has the form (blocks [B, bytes], out [B, 256]) and writes all weights.
Shape letters: B blocks, X bytes, W weights of a block, G groups of a block, P points of a grid or of a block,
N weights of a point.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.ops.grids import grid_of
from octavo.weights.gguf.bits import Bytes, Floats, fields, half, scale_groups

Indices = npt.NDArray[np.unsignedinteger[Any]]

LEVELS = {
    "IQ1": np.array([-1, 0, 1], dtype=np.float32),
    "IQ2": np.array([8, 25, 43], dtype=np.float32),
    "IQ3_S": np.array([1, 3, 5, 7, 9, 11, 13, 15], dtype=np.float32),
    "IQ3_XXS": np.array([4, 12, 20, 28, 36, 44, 52, 62], dtype=np.float32),
}
"""What the digits of points mean, by the beginning of a type's name."""
IQ1_SHIFT = np.float32(0.125)
"""All weights of a group are this much above their levels, or below."""

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
SIGNS_OF_BYTE: Floats = 1 - 2 * _BITS.astype(np.float32)
"""[256, 8]: -1 where a bit is set."""
SIGNS_OF_SEVEN_BITS = SIGNS_OF_BYTE[:128].copy()
"""[128, 8]: the eighth sign makes the number of negative ones even."""
SIGNS_OF_SEVEN_BITS[:, 7] = SIGNS_OF_SEVEN_BITS[:, :7].prod(axis=1)


def iq1_s(blocks_BX: Bytes, out_BW: Floats) -> None:
    words_BG = _words(blocks_BX[:, 34:], np.uint16)  # four times three bits of indices, a scale, a sign
    _place("IQ1_S", _index(blocks_BX[:, 2:34], _four_fields(words_BG, 3)), out_BW)
    out_BW += np.where(words_BG >> np.uint16(15), -IQ1_SHIFT, IQ1_SHIFT).repeat(32, axis=1)
    scale_groups(out_BW, half(blocks_BX, 0) * _odd(words_BG >> np.uint16(12) & np.uint16(7)))


def iq1_m(blocks_BX: Bytes, out_BW: Floats) -> None:
    # The block's scale in half precision is in the highest four bits of four words, its lowest in the first.
    words = _words(blocks_BX[:, 48:], np.uint16)
    parts = words >> np.uint16(12) << np.array([0, 4, 8, 12], dtype=np.uint16)
    scale_B1 = half(np.bitwise_or.reduce(parts, axis=1, keepdims=True).view(np.uint8), 0)
    # Three more bits of an index, and a sign of eight weights, for every point.
    high_BP = fields(blocks_BX[:, 32:48], 4, 1)
    _place("IQ1_M", _index(blocks_BX[:, :32], high_BP & np.uint8(7)), out_BW)
    out_BW += np.where(high_BP & np.uint8(8), -IQ1_SHIFT, IQ1_SHIFT).repeat(8, axis=1)
    scale_groups(out_BW, scale_B1 * _odd(_four_fields(words, 3)))


def iq2_xxs(blocks_BX: Bytes, out_BW: Floats) -> None:
    pairs = _words(blocks_BX[:, 2:], np.uint32).reshape(-1, 8, 2)  # four points, then signs and a scale
    _place("IQ2_XXS", np.ascontiguousarray(pairs[:, :, 0]).view(np.uint8), out_BW)
    scale_BG = _sign_with_seven_bits(pairs[:, :, 1], out_BW)
    scale_groups(out_BW, half(blocks_BX, 0) * scale_BG * np.float32(0.25))


def iq2_xs(blocks_BX: Bytes, out_BW: Floats) -> None:
    words_BP = _words(blocks_BX[:, 2:66], np.uint16)
    _place("IQ2_XS", words_BP & np.uint16(511), out_BW)
    _sign(SIGNS_OF_SEVEN_BITS, words_BP >> np.uint16(9), out_BW)
    _scale_iq2(blocks_BX, blocks_BX[:, 66:], out_BW)


def iq2_s(blocks_BX: Bytes, out_BW: Floats) -> None:
    _place("IQ2_S", _index(blocks_BX[:, 2:34], fields(blocks_BX[:, 66:74], 2, 1)), out_BW)
    _sign(SIGNS_OF_BYTE, blocks_BX[:, 34:66], out_BW)
    _scale_iq2(blocks_BX, blocks_BX[:, 74:], out_BW)


def iq3_xxs(blocks_BX: Bytes, out_BW: Floats) -> None:
    _place("IQ3_XXS", blocks_BX[:, 2:66], out_BW)
    scale_BG = _sign_with_seven_bits(_words(blocks_BX[:, 66:], np.uint32), out_BW)
    scale_groups(out_BW, half(blocks_BX, 0) * scale_BG * np.float32(0.5))


def iq3_s(blocks_BX: Bytes, out_BW: Floats) -> None:
    _place("IQ3_S", _index(blocks_BX[:, 2:66], fields(blocks_BX[:, 66:74], 1, 1)), out_BW)
    _sign(SIGNS_OF_BYTE, blocks_BX[:, 74:106], out_BW)
    scale_groups(out_BW, half(blocks_BX, 0) * _odd(fields(blocks_BX[:, 106:], 4, 1)))


@cache
def _points(kind: str) -> Floats:
    """[P, N]: the grid of a type, in numbers."""
    digits_PN = grid_of(kind)
    assert digits_PN is not None, "the types here have one"
    levels = next(levels for name, levels in LEVELS.items() if kind.startswith(name))
    return levels[digits_PN]


def _index(low_BP: Bytes, high_BP: Indices) -> Indices:
    """Of points, from their lowest eight bits and those above."""
    index_BP: Indices = low_BP | high_BP.reshape(low_BP.shape).astype(np.uint16) << np.uint16(8)
    return index_BP


def _four_fields(words_BG: Indices, bits: int) -> Indices:
    """The lowest fields of so many bits in every word -> [B, 4 G]"""
    shifts = bits * np.arange(4, dtype=words_BG.dtype)
    fields_BG4: Indices = words_BG[:, :, None] >> shifts & words_BG.dtype.type((1 << bits) - 1)
    return fields_BG4.reshape(len(words_BG), -1)


def _place(kind: str, index_BP: Indices, out_BW: Floats) -> None:
    """Write points side by side."""
    points_PN = _points(kind)
    room = out_BW.reshape(*index_BP.shape, points_PN.shape[1])
    np.take(points_PN, index_BP, axis=0, out=room, mode="clip")


def _sign(table: Floats, index_BG: Indices, out_BW: Floats) -> None:
    out_BW *= table[index_BG].reshape(out_BW.shape)


def _sign_with_seven_bits(words_BG: npt.NDArray[np.uint32], out_BW: Floats) -> Floats:
    """A word has 32 weights' signs in its lowest 28 bits. Returns what the four above say of the scale."""
    _sign(SIGNS_OF_SEVEN_BITS, _four_fields(words_BG, 7), out_BW)
    scale_BG: Floats = np.float32(0.5) + (words_BG >> np.uint32(28)).astype(np.float32)
    return scale_BG


def _scale_iq2(blocks_BX: Bytes, nibbles_BX: Bytes, out_BW: Floats) -> None:
    scale_BG = np.float32(0.5) + fields(nibbles_BX, 4, 1).astype(np.float32)
    scale_groups(out_BW, half(blocks_BX, 0) * scale_BG * np.float32(0.25))


def _odd(scale_BG: Indices) -> Floats:
    odd_BG: Floats = (2 * scale_BG + 1).astype(np.float32)
    return odd_BG


def _words(blocks_BX: Bytes, dtype: type[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(blocks_BX).view(dtype)
