"""Ropes whose frequencies transformers chooses anew in each step, by the longest text in it.

Here a step holds parts of many texts, and cached keys are shared. So a token's rotation depends on its own
position alone, by the rules of our own models (see layers/rope.py): "dynamic" turns a token as if the text
ended with it; "longrope" takes the factors for the longest text that the engine allows. The module itself is
asked once for every position, and a table of its answers takes its place. Asking one by one takes about half
a millisecond each: only past the first training of a "dynamic" rope.

P positions, T tokens, D what is rotated of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.models.fallback.apart import POSITIONS

MOVING = ("dynamic", "longrope")
LEAST_POSITIONS = POSITIONS[-1] + 1
"""That a model is asked for, however short its texts are."""


def moving_ropes(skeleton: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, name in it, module) of each that looks at the longest text."""
    return [
        (parent, name, child)
        for parent in skeleton.modules()
        for name, child in parent.named_children()
        if getattr(child, "rope_type", None) in MOVING
    ]


def tell_their_type(skeleton: nn.Module) -> bool:
    """Whether ropes say how they turn. Configs may call one dynamic that its module never moves (HunYuan)."""
    return any(isinstance(getattr(module, "rope_type", None), str) for module in skeleton.modules())


@contextmanager
def held_still(skeleton: nn.Module) -> Iterator[None]:
    """Without numbers there is no longest text to look at."""
    ropes = [module for _, _, module in moving_ropes(skeleton)]
    kinds = [module.rope_type for module in ropes]
    try:
        for module in ropes:
            module.rope_type = "default"  # type: ignore[assignment]
        yield
    finally:
        for module, kind in zip(ropes, kinds, strict=True):
            module.rope_type = kind


def fix_ropes(skeleton: Any, placement: Placement) -> None:
    """Put tables in the places of moving ropes, whose own numbers are there. Raises ModelFileError."""
    for parent, name, module in moving_ropes(skeleton):
        setattr(parent, name, RopeTable(module, type(skeleton).__name__, placement))


class RopeTable(nn.Module):
    """(x, positions [1, T]) -> what the rope gave for each: two tensors [1, T, D]."""

    def __init__(self, rope: nn.Module, model: str, placement: Placement) -> None:
        super().__init__()
        longest = max(placement.max_positions, LEAST_POSITIONS)
        x = torch.zeros(1, 1, 1, dtype=placement.dtype)
        rope = rope.to("cpu")  # asked position by position, which a GPU would only be slower at
        whole = longest if rope.rope_type == "longrope" else min(longest, _still_until(rope))
        answers = [_ask(rope, x, torch.arange(whole), model)]
        answers += [_ask(rope, x, torch.tensor([position]), model) for position in range(whole, longest)]
        self.cosines_PD, self.sines_PD = (
            nn.Buffer(torch.cat(parts).to(placement.device), persistent=False)
            for parts in zip(*answers, strict=True)
        )

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        positions_T = position_ids[0]
        return self.cosines_PD[positions_T][None], self.sines_PD[positions_T][None]


def _still_until(rope: nn.Module) -> int:
    """Texts of up to so many tokens are turned alike."""
    stated = getattr(rope, "original_max_seq_len", None)
    return int(stated) if isinstance(stated, int) and stated > 0 else 1


@torch.no_grad()
def _ask(
    rope: nn.Module, x: torch.Tensor, positions_P: torch.Tensor, model: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """[P, D] each."""
    found = rope(x, positions_P[None])
    shapes = [each.shape[:2] if isinstance(each, torch.Tensor) and each.ndim == 3 else None for each in found]
    if shapes != [(1, len(positions_P))] * 2:
        raise ModelFileError(
            f"transformers' {model} cannot run on paged attention: its rope does not give a cosine and a "
            "sine for each position, so it cannot be made to depend on that alone."
        )
    return found[0][0], found[1][0]
