"""Masks that hold for one step: one bit per token of the vocabulary, for some rows of the step.

An extra sets them before the step samples; sampling uses them up. M masked rows, V vocabulary, W words of 32.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.worker.upload import upload

_NEVER = float("-inf")
_ROWS_AT_ONCE = 32


def mask_words(vocab_size: int) -> int:
    """Words of 32 bits that one mask takes."""
    return (vocab_size + 31) // 32


class TokenMasks:
    """The masks of the step that is being put together."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._shift_32 = torch.arange(32, dtype=torch.int32, device=device)
        self._places: list[int] = []
        self._bits_MW: NDArray[np.int32] | None = None

    @property
    def is_set(self) -> bool:
        return self._bits_MW is not None

    def set(self, places: list[int], bits_MW: NDArray[np.int32]) -> None:
        """Bit t % 32 of word t // 32 says whether token t may be chosen; places are those in the step."""
        self._places, self._bits_MW = places, bits_MW

    def forget(self) -> None:
        self._bits_MW = None

    def apply(self, logits_SV: Tensor) -> None:
        """Mask the logits in place and forget the masks."""
        places, bits_MW, self._bits_MW = self._places, self._bits_MW, None
        if bits_MW is None:
            return
        is_everywhere = places == list(range(len(logits_SV)))
        for start in range(0, len(places), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            is_masked_MV = self._is_masked(bits_MW[part])
            if is_everywhere:
                logits_SV[part].masked_fill_(is_masked_MV, _NEVER)
            else:
                place_M = upload(places[part], torch.int64, self._device)
                logits_SV[place_M] = logits_SV[place_M].masked_fill_(is_masked_MV, _NEVER)

    def _is_masked(self, bits_MW: NDArray[np.int32]) -> Tensor:
        if self._device.type == "cpu":
            allowed = np.unpackbits(bits_MW.view(np.uint8), axis=1, count=self._vocab_size, bitorder="little")
            return torch.from_numpy(allowed == 0)
        words_MW = upload(bits_MW, torch.int32, self._device)
        bits_MV = (words_MW.unsqueeze(-1) >> self._shift_32).bitwise_and_(1).flatten(1)
        return bits_MV[:, : self._vocab_size] == 0
