"""The GGUF types with 32 weights per block, and the plain ones. See `dequant.py` for the table.

Every function has the form (blocks [B, bytes], out [B, weights]) and writes all weights.
"""

from __future__ import annotations

import numpy as np

from octavo.weights.gguf.bits import FP4_DOUBLED, NONLINEAR_4BIT, Bytes, Floats, fields, half


def f32(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW.view(np.uint8)[:] = blocks_BX


def f16(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = np.ascontiguousarray(blocks_BX).view(np.float16)


def bf16(blocks_BX: Bytes, out_BW: Floats) -> None:
    bits = np.ascontiguousarray(blocks_BX).view(np.uint16)
    np.left_shift(bits, 16, out=out_BW.view(np.uint32), dtype=np.uint32)


def q4_0(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = fields(blocks_BX[:, 2:], 4, 16)
    out_BW -= np.float32(8)
    out_BW *= half(blocks_BX, 0)


def q4_1(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = fields(blocks_BX[:, 4:], 4, 16)
    out_BW *= half(blocks_BX, 0)
    out_BW += half(blocks_BX, 2)


def _five_bits(blocks_BX: Bytes, high_at: int) -> Bytes:
    """Join low nibbles with the fifth bits, which are packed one bit per weight from byte `high_at`."""
    q_BW = fields(blocks_BX[:, high_at + 4 :], 4, 16)
    q_BW |= np.unpackbits(blocks_BX[:, high_at : high_at + 4], axis=1, bitorder="little") << np.uint8(4)
    return q_BW


def q5_0(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = _five_bits(blocks_BX, 2)
    out_BW -= np.float32(16)
    out_BW *= half(blocks_BX, 0)


def q5_1(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = _five_bits(blocks_BX, 4)
    out_BW *= half(blocks_BX, 0)
    out_BW += half(blocks_BX, 2)


def q8_0(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = blocks_BX[:, 2:].view(np.int8)
    out_BW *= half(blocks_BX, 0)


def iq4_nl(blocks_BX: Bytes, out_BW: Floats) -> None:
    np.take(NONLINEAR_4BIT, fields(blocks_BX[:, 2:], 4, 16), out=out_BW, mode="clip")
    out_BW *= half(blocks_BX, 0)


def mxfp4(blocks_BX: Bytes, out_BW: Floats) -> None:
    """The first byte is an exponent. Levels are doubled and scales halved, so that these stay in range."""
    np.take(FP4_DOUBLED, fields(blocks_BX[:, 1:], 4, 16), out=out_BW, mode="clip")
    exponents_B1 = blocks_BX[:, :1].astype(np.uint32)
    subnormal_B1 = np.uint32(0x00200000) << np.minimum(exponents_B1, 1)
    bits_B1 = np.where(exponents_B1 < 2, subnormal_B1, (exponents_B1 - 1) << np.uint32(23))
    out_BW *= bits_B1.astype(np.uint32).view(np.float32)
