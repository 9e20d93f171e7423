"""The GGUF types with 256 weights per block: groups of 16 or 32 weights have scales of their own.

Every function has the form (blocks [B, bytes], out [B, 256]) and writes all weights.
Shape letters: B blocks, X bytes, W weights of a block, G groups of a block.
"""

from __future__ import annotations

import numpy as np

from octavo.weights.gguf.bits import NONLINEAR_4BIT, Bytes, Floats, fields, half, scale_groups


def q2_k(blocks_BX: Bytes, out_BW: Floats) -> None:
    packed_BG = blocks_BX[:, :16]
    scale_BG = half(blocks_BX, 80) * (packed_BG & np.uint8(15)).astype(np.float32)
    low_BG = half(blocks_BX, 82) * (packed_BG >> np.uint8(4)).astype(np.float32)
    out_BW[:] = fields(blocks_BX[:, 16:80], 2, 32)
    scale_groups(out_BW, scale_BG, low_BG)


def q3_k(blocks_BX: Bytes, out_BW: Floats) -> None:
    # Sixteen 6-bit scales: low nibbles in bytes 96-103, high pairs of bits in bytes 104-107.
    scale_BG = fields(blocks_BX[:, 96:104], 4, 8)
    scale_BG |= fields(blocks_BX[:, 104:108], 2, 4) << np.uint8(4)
    scales = half(blocks_BX, 108) * (scale_BG.astype(np.float32) - np.float32(32))
    out_BW[:] = fields(blocks_BX[:, 32:96], 2, 32)
    # A mask bit of 1 means that nothing is subtracted.
    out_BW -= (fields(blocks_BX[:, :32], 1, 32) ^ np.uint8(1)) << np.uint8(2)
    scale_groups(out_BW, scales)


def _scales_and_minima(blocks_BX: Bytes) -> tuple[Floats, Floats]:
    """Unpack eight 6-bit scales and minima from bytes 4-15 and multiply by the block's two halves."""
    first, second, rest = blocks_BX[:, 4:8], blocks_BX[:, 8:12], blocks_BX[:, 12:16]
    low, top = np.uint8(63), np.uint8(48)
    scale_BG = np.concatenate([first & low, (rest & np.uint8(15)) | ((first >> np.uint8(2)) & top)], axis=1)
    low_BG = np.concatenate([second & low, (rest >> np.uint8(4)) | ((second >> np.uint8(2)) & top)], axis=1)
    return half(blocks_BX, 0) * scale_BG.astype(np.float32), half(blocks_BX, 2) * low_BG.astype(np.float32)


def q4_k(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = fields(blocks_BX[:, 16:], 4, 32)
    scale_groups(out_BW, *_scales_and_minima(blocks_BX))


def q5_k(blocks_BX: Bytes, out_BW: Floats) -> None:
    q_BW = fields(blocks_BX[:, 48:], 4, 32)
    q_BW |= fields(blocks_BX[:, 16:48], 1, 32) << np.uint8(4)
    out_BW[:] = q_BW
    scale_groups(out_BW, *_scales_and_minima(blocks_BX))


def q6_k(blocks_BX: Bytes, out_BW: Floats) -> None:
    scale_BG = half(blocks_BX, 208) * blocks_BX[:, 192:208].view(np.int8).astype(np.float32)
    q_BW = fields(blocks_BX[:, :128], 4, 64)
    q_BW |= fields(blocks_BX[:, 128:192], 2, 32) << np.uint8(4)
    out_BW[:] = q_BW
    out_BW -= np.float32(32)
    scale_groups(out_BW, scale_BG)


def iq4_xs(blocks_BX: Bytes, out_BW: Floats) -> None:
    # Eight 6-bit scales: high pairs of bits in bytes 2-3, low nibbles in bytes 4-7.
    scale_BG = fields(blocks_BX[:, 4:8], 4, 1)
    scale_BG |= fields(blocks_BX[:, 2:4], 2, 1) << np.uint8(4)
    scales = half(blocks_BX, 0) * (scale_BG.astype(np.float32) - np.float32(32))
    np.take(NONLINEAR_4BIT, fields(blocks_BX[:, 8:], 4, 16), out=out_BW, mode="clip")
    scale_groups(out_BW, scales)


def tq1_0(blocks_BX: Bytes, out_BW: Floats) -> None:
    """Five ternary digits to a byte: 243 numbers spread over 256, so that digits are carries of times 3."""
    for start, stop, first, digits in ((0, 32, 0, 5), (32, 48, 160, 5), (48, 52, 240, 4)):
        packed_BX, size = blocks_BX[:, start:stop], stop - start
        for digit in range(digits):
            rest = packed_BX * np.uint8(3**digit)
            out_BW[:, first + digit * size :][:, :size] = rest.astype(np.uint16) * np.uint16(3) >> np.uint16(
                8
            )
    out_BW -= np.float32(1)
    out_BW *= half(blocks_BX, 52)


def tq2_0(blocks_BX: Bytes, out_BW: Floats) -> None:
    out_BW[:] = fields(blocks_BX[:, :64], 2, 32)
    out_BW -= np.float32(1)
    out_BW *= half(blocks_BX, 64)
