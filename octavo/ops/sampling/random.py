"""Random numbers as a function of (key, position): the counter-based generator Philox4x32-10.

From "Parallel random numbers: as easy as 1, 2, 3" (Salmon, Moraes, Dror, Shaw; SC 2011). A row needs one
uniform number per token, because tokens are drawn by inverting the distribution (draw.py): the cost
does not depend on the vocabulary, where the other common method (the largest of logits plus Gumbel
noise) needs one hash and two logarithms per vocabulary entry, milliseconds a row on a CPU, and a
logarithm that is bit-equal on every device. Integers are: any device gives these same numbers.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

ROUNDS = 10
_WORD = 0xFFFFFFFF
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
# The multipliers 0xD2511F53 and 0xCD9E8D57, less 2**32: their products with a word fit in signed 64 bits.
_MULTIPLIER_0 = 0xD2511F53 - 2**32
_MULTIPLIER_1 = 0xCD9E8D57 - 2**32

Word = TypeVar("Word", int, NDArray[Any], Tensor)


def round_keys(key: int) -> list[int]:
    """The key of each round, two words each, of a 64-bit key: word i of round r at [2 * r + i]."""
    words = (key & _WORD, (key >> 32) & _WORD)
    return [(words[i] + r * _KEY_STEPS[i]) & _WORD for r in range(ROUNDS) for i in (0, 1)]


def philox(c0: Word, c1: Word, c2: Word, c3: Word, keys: list[Word]) -> tuple[Word, Word, Word, Word]:
    """Four random 32-bit words for each counter of four words, under keys from round_keys().

    Only operators that integers, int64 arrays and int64 tensors share. With m = multiplier - 2**32 a
    product is word * 2**32 + word * m: its low word is that of word * m, its high word is
    word + (word * m >> 32), the shift rounding down.
    """
    for r in range(ROUNDS):
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c2 = (c2 + (p1 >> 32)) ^ c1 ^ keys[2 * r], (c0 + (p0 >> 32)) ^ c3 ^ keys[2 * r + 1]
        c1, c3 = p1 & _WORD, p0 & _WORD
    return c0, c1, c2, c3


TOKENS, XTC_COINS = range(2)
"""Streams: independent series of numbers under the same key."""


def uniforms(position_S: Tensor, round_keys_SK: Tensor, stream: int = TOKENS) -> Tensor:
    """One float64 in [0, 1) with 53 random bits for the token at each position under each key.

    The counter is (position, stream, 0) with 64 bits for the position. On the CPU numpy does it: for
    arrays as short as a batch it starts an operation several times quicker than torch, and there are
    over a hundred.
    """
    if position_S.device.type == "cpu":
        bits_S = torch.from_numpy(_bits(position_S.numpy(), list(round_keys_SK.numpy().T), stream))
    else:
        bits_S = _bits(position_S, list(round_keys_SK.unbind(1)), stream)
    return bits_S.to(torch.float64) * 2.0**-53


def _bits(position: Word, keys: list[Word], stream: int) -> Word:
    zero = position & 0
    w0, w1, _, _ = philox(position & _WORD, position >> 32, zero + stream, zero, keys)
    return ((w0 >> 5) << 26) | (w1 >> 6)
