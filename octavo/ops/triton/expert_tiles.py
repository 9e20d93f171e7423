"""How the products of experts are cut, by the number of tokens. X experts, O output rows, I input columns.

Few tokens only stream the chosen experts' weights past; many fill the tiles of the matrix units. Between
them most experts have work, but little of it each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

from octavo.ops.triton.tuning import tuned


@dataclass(frozen=True)
class ExpertTile:
    """One program's part of a product."""

    block_o: int
    block_i: int
    warps: int
    stages: int
    """Tiles of weight and inputs on their way at any time, plus one."""

    def shared_bytes(self, block_p: int, element_size: int) -> int:
        return (block_p + self.block_o) * self.block_i * element_size * self.stages


@dataclass(frozen=True)
class ExpertForm:
    """Kernels for steps of up to `max_tokens`."""

    name: str
    max_tokens: float
    block_p: int
    """Rows of a tile: pairs of one expert."""
    is_sorted: bool = True
    """Pairs are sorted by expert first. Else a tile has a row for each token, whoever it chose."""
    sorted_at_once: int = 1024
    """Pairs that a sorting program reads in one step."""


FORMS = (
    ExpertForm("few", 16, 16, is_sorted=False),
    ExpertForm("some", 128, 16),
    ExpertForm("many", 1024, 64),
    ExpertForm("most", float("inf"), 128, sorted_at_once=4096),
)
INVARIANT = ExpertForm("invariant", float("inf"), 64)
"""The one for every number of tokens, where a token's numbers may not depend on the others."""


def form_for(tokens: int) -> ExpertForm:
    return next(form for form in FORMS if tokens <= form.max_tokens)


@cache
def tile_for(
    device: torch.device, product: str, form: ExpertForm, outputs: int, inputs: int, element_size: int
) -> ExpertTile:
    """The tile measured for this product ("gate_up" or "down") and GPU, or one by rule of thumb."""
    found = None
    if element_size == 2:
        found = tuned(device, f"experts_{product}_{form.name}", outputs, inputs)
    if found is not None:
        return ExpertTile(**found)
    tile = usual_tile(form.block_p, inputs, element_size)
    return fitted(tile, form.block_p, element_size, _shared_memory(device))


def fitted(tile: ExpertTile, block_p: int, element_size: int, shared_memory: int) -> ExpertTile:
    """With as many stages as there is room for; GPUs without the large shared memory have less."""
    while tile.stages > 1 and tile.shared_bytes(block_p, element_size) > shared_memory:
        tile = replace(tile, stages=tile.stages - 1)
    return tile


def _shared_memory(device: torch.device) -> int:
    """What a program may have: all but the 1 KB that the driver keeps."""
    if device.type != "cuda":
        return 1 << 30
    return int(torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor - 1024)


def usual_tile(block_p: int, inputs: int, element_size: int) -> ExpertTile:
    """Narrow tiles where weights only stream: many programs, each with loads in flight. Else wide ones."""
    if element_size > 2:  # exact float32 has no matrix unit: a tile that fits into registers
        return ExpertTile(block_o=64, block_i=32, warps=4, stages=2)
    if block_p <= 16:
        return ExpertTile(block_o=32, block_i=64 if inputs % 128 else 128, warps=4, stages=4)
    return ExpertTile(block_o=128, block_i=64, warps=4 if block_p <= 64 else 8, stages=4)
