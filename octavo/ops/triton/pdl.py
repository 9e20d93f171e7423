"""Programmatic dependent launch: a kernel's launch overlaps the end of the kernel before it.

Worth about a microsecond to each kernel of a chain of small ones, on compute capability 9 and later. A
kernel so launched starts before its predecessor has ended: it calls `gdc_wait` before it touches
anything that an earlier kernel wrote, and before it writes anything that an earlier kernel may still
read. Every program of it waits, also one that has nothing else to do: the next kernel takes this one's
end for the end of all before it.
"""

from __future__ import annotations

from functools import cache

import torch

ENABLED = True
"""Off, kernels follow one another as anywhere else."""


def pdl_options(device: torch.device) -> dict[str, bool]:
    """Keyword arguments of a kernel launch: the kernel's USE_PDL, and the launch attribute itself."""
    return _WITH if ENABLED and _is_supported(device) else _WITHOUT


_WITH = {"USE_PDL": True, "launch_pdl": True}
_WITHOUT = {"USE_PDL": False}


@cache
def _is_supported(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.cuda is not None and _capability(device) >= (9, 0)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
