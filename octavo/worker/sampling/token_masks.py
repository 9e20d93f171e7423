"""Masks that hold for one step: one bit per token of the vocabulary, for some rows of the step.

An extra sets them before the step samples; sampling uses them up. M masked rows, V vocabulary, W words of 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.ops.sampling.token_masks import mask_tokens
from octavo.worker.upload import upload


def mask_words(vocab_size: int) -> int:
    """Words of 32 bits that one mask takes."""
    return (vocab_size + 31) // 32


class TokenMasks:
    """The masks of the step that is being put together."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._num_words = mask_words(vocab_size)
        self._device = device
        self._mask_tokens = mask_tokens.on(device)
        self._places: list[int] = []
        self._allowed_MW: Tensor | None = None

    @property
    def is_set(self) -> bool:
        return self._allowed_MW is not None

    def blank(self, count: int) -> Tensor:
        """int32 [count, W] on the host, from where it travels without a copy; every token may be chosen."""
        is_pinned = self._device.type == "cuda"
        return torch.empty(count, self._num_words, dtype=torch.int32, pin_memory=is_pinned).fill_(-1)

    def set(self, places: list[int], allowed_MW: Tensor) -> None:
        """Bit t % 32 of word t // 32 says whether token t may be chosen; places are those in the step."""
        self._places, self._allowed_MW = places, allowed_MW

    def forget(self) -> None:
        self._allowed_MW = None

    def apply(self, logits_SV: Tensor) -> None:
        """Mask the logits in place and forget the masks."""
        places, allowed_MW, self._allowed_MW = self._places, self._allowed_MW, None
        if allowed_MW is None or not places:
            return
        is_everywhere = places == list(range(len(logits_SV)))
        places_M = None if is_everywhere else upload(places, torch.int64, self._device)
        self._mask_tokens(logits_SV, allowed_MW.to(self._device, non_blocking=True), places_M)
