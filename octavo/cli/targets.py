"""What `octavo plan` plans for: a GPU by name, by size, the one in this machine, or this machine's CPU."""

from __future__ import annotations

import re

import msgspec

from octavo.base.errors import ConfigError
from octavo.base.gpus import visible_gpus
from octavo.base.native import native_kernels
from octavo.cli import machine
from octavo.config.facts import DeviceFacts


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A device and its memory."""

    name: str
    kind: str
    """'cpu' or 'cuda'."""
    memory_bytes: int
    """What a program can get on it when nothing else runs; on a CPU what is available now."""
    has_bfloat16: bool

    @property
    def caveat(self) -> str | None:
        """Why a plan for it may stay one."""
        if self.kind == "cpu" or self.has_bfloat16:
            return None
        return "before Ampere: Triton, which compiles the kernels, supports it no more; nothing was tested"

    @property
    def facts(self) -> DeviceFacts:
        return DeviceFacts(
            kind=self.kind,
            has_fast_bfloat16=self.has_bfloat16,
            name=self.name,
            why="what is planned for",
            kernels=native_kernels() if self.kind == "cpu" else None,
        )


def _gpu(name: str, gib: float, *, has_bfloat16: bool = True) -> Target:
    return Target(name=name, kind="cuda", memory_bytes=int(gib * 2**30), has_bfloat16=has_bfloat16)


GPUS = {
    "t4": _gpu("Tesla T4", 14.6, has_bfloat16=False),
    "v100-16": _gpu("Tesla V100 16GB", 15.7, has_bfloat16=False),
    "a10": _gpu("A10", 22.0),
    "a10g": _gpu("A10G", 22.0),
    "l4": _gpu("L4", 22.0),
    "rtx4090": _gpu("GeForce RTX 4090", 23.5),
    "rtx3090": _gpu("GeForce RTX 3090", 23.6),
    "rtx5090": _gpu("GeForce RTX 5090", 31.3),
    "v100-32": _gpu("Tesla V100 32GB", 31.7, has_bfloat16=False),
    "a100-40": _gpu("A100 40GB", 39.4),
    "a40": _gpu("A40", 44.3),
    "l40": _gpu("L40", 44.3),
    "l40s": _gpu("L40S", 44.3),
    "a6000": _gpu("RTX A6000", 47.3),
    "h100": _gpu("H100 80GB", 79.0),
    "a100-80": _gpu("A100 80GB", 79.0),
    "h100-nvl": _gpu("H100 NVL", 93.0),
    "h200": _gpu("H200", 139.7),
    "b200": _gpu("B200", 178.0),
}
"""By the name `--gpu` takes, smallest first; memory as programs see it, in GiB."""


def listed_gpus() -> str:
    """Names of the table; those that Triton does not support any more come last, marked."""
    current = [name for name, gpu in GPUS.items() if gpu.caveat is None]
    older = [name for name, gpu in GPUS.items() if gpu.caveat is not None]
    return f"{', '.join(current)}, and without promise, before Ampere, {', '.join(older)}"


_LARGEST = 1e6
"""No GPU has so many GiB."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GiB|GB|G)", re.IGNORECASE)


def find_target(wish: str) -> Target:
    """A GPU of the table, or any GPU of a given size. Raises ConfigError naming what there is."""
    key = wish.strip().lower().replace("_", "-").replace(" ", "-").removeprefix("nvidia-")
    if key in GPUS:
        return GPUS[key]
    size = _SIZE.fullmatch(wish.strip())
    if size is None or not 0 < float(size[1]) < _LARGEST:
        raise ConfigError(
            f"There is no GPU {wish!r} in the list; there are {listed_gpus()}. Others go by their "
            "memory, such as 80GiB.",
            param="gpu",
        )
    unit = 10**9 if size[2].lower() == "gb" else 2**30
    return Target(
        name=f"a GPU of {size[1]} {size[2]}",
        kind="cuda",
        memory_bytes=int(float(size[1]) * unit),
        has_bfloat16=True,
    )


def local_target(kind: str) -> Target:
    """This machine's first GPU, or its CPU with the memory that is available now."""
    if kind == "cpu":
        _, available = machine.memory_bytes()
        return Target(name=machine.cpu_model(), kind="cpu", memory_bytes=available, has_bfloat16=False)
    gpu = visible_gpus()[0]
    return Target(
        name=gpu.name, kind="cuda", memory_bytes=gpu.memory_bytes, has_bfloat16=gpu.capability >= (8, 0)
    )
