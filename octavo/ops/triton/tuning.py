"""Measured choices kept as data, and the few facts about a GPU that kernels are cut by.

`tuned/linear.json` holds {GPU: {kernel: {"O,I": {choice: value}}}}. A GPU is named as its driver names it,
or by its compute capability ("sm_90") for all that share it. `benchmarks/gpu/kernels/linear.py` prints what
to put there. A shape or GPU that is not in the file gets its kernel's own rule of thumb.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import torch

Choices = Mapping[str, int]

UNKNOWN_MULTIPROCESSORS = 132
"""What we cut for where no GPU can be asked: kernels that are interpreted on the CPU."""


def tuned(device: torch.device, kernel: str, outputs: int, inputs: int) -> Choices | None:
    """The measured choices for a weight [outputs, inputs], or None."""
    for gpu in gpu_names(device):
        found = _table().get(gpu, {}).get(kernel, {}).get(f"{outputs},{inputs}")
        if found is not None:
            return found
    return None


@cache
def gpu_names(device: torch.device) -> tuple[str, ...]:
    """What the table may call this GPU, the most exact first; nothing for a CPU."""
    if device.type != "cuda":
        return ()
    properties = torch.cuda.get_device_properties(device)
    return properties.name, f"sm_{properties.major}{properties.minor}"


@cache
def multiprocessors(device: torch.device) -> int:
    """How many programs run side by side at the least."""
    if device.type != "cuda":
        return UNKNOWN_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def _table() -> Mapping[str, Mapping[str, Mapping[str, Choices]]]:
    table: Mapping[str, Mapping[str, Mapping[str, Choices]]] = json.loads(
        files("octavo.ops.triton").joinpath("tuned/linear.json").read_text(encoding="utf-8")
    )
    return table
