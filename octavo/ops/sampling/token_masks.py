"""mask_tokens: logits of tokens that a step's masks forbid become minus infinity.

S rows of the step, M of them with masks, V vocabulary, W words of 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from octavo.base.table import LazyTable
from octavo.ops.contract import Op

_NEVER = float("-inf")
_ROWS_AT_ONCE = 32
"""Bits are spread out to bytes for so many rows at a time."""


def _plain(logits_SV: Tensor, allowed_MW: Tensor, places_M: Tensor | None) -> None:
    """Masks int32 [M, W] hold a token's bit at t % 32 of word t // 32: 1 where it may be chosen.

    places_M: whose masks they are, int64; None: those of all rows, in order.
    """
    bits = torch.arange(32, dtype=torch.int32, device=allowed_MW.device)
    is_masked_MV = ((allowed_MW.unsqueeze(-1) >> bits) & 1).flatten(1)[:, : logits_SV.shape[1]] == 0
    _write(logits_SV, is_masked_MV, places_M)


def mask_tokens_cpu(logits_SV: Tensor, allowed_MW: Tensor, places_M: Tensor | None) -> None:
    """numpy spreads bits ten times as fast as shifts do."""
    for start in range(0, len(allowed_MW), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        bytes_MB = allowed_MW[part].numpy().view(np.uint8)
        allowed_MV = np.unpackbits(bytes_MB, axis=1, count=logits_SV.shape[1], bitorder="little")
        is_masked_MV = torch.from_numpy(allowed_MV == 0)
        if places_M is None:
            _write(logits_SV[part], is_masked_MV, None)
        else:
            _write(logits_SV, is_masked_MV, places_M[part])


def _write(logits_SV: Tensor, is_masked_MV: Tensor, places_M: Tensor | None) -> None:
    if places_M is None:
        logits_SV.masked_fill_(is_masked_MV, _NEVER)
    else:
        logits_SV[places_M] = logits_SV[places_M].masked_fill_(is_masked_MV, _NEVER)


def _examples() -> Iterator[tuple[Any, ...]]:
    """Widths that fill their last word and that do not; all rows and some, in any order."""
    generator = torch.Generator().manual_seed(0)

    def example(num_rows: int, vocab_size: int, places: list[int] | None) -> tuple[Any, ...]:
        count = num_rows if places is None else len(places)
        words = torch.randint(
            -(2**31), 2**31, (count, (vocab_size + 31) // 32), generator=generator, dtype=torch.int32
        )
        logits = torch.randn(num_rows, vocab_size, generator=generator)
        return logits, words, None if places is None else torch.tensor(places)

    yield example(1, 31, None)
    yield example(3, 64, None)
    yield example(35, 1057, None)
    yield example(5, 4100, [4, 0, 3])
    yield example(40, 70, list(range(39, 2, -1)))


mask_tokens = Op(
    name="mask_tokens",
    plain=_plain,
    providers=LazyTable(
        "mask_tokens provider",
        {
            "cpu": "octavo.ops.sampling.token_masks:mask_tokens_cpu",
            "cuda": "octavo.ops.triton.token_masks:mask_tokens",
        },
    ),
    examples=_examples,
    tolerance=0.0,
    writes=(0,),
)
