"""What the benchmarks of linear layers share: shapes, weights that rotate past the L2, checks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from benchmarks.gpu.timing import graph_time_us

COPY_TBS = 3.0
"""What a large copy reaches on an H100: the ceiling for reading weights."""

COMPILERS = 12

CUDA = torch.device("cuda", 0)

WRONG = 0.005
"""Relative error from which a bfloat16 result is more than rounded."""

Best = dict[str, dict[str, dict[str, int]]]
"""{kernel: {"O,I": choices}}: what goes into the file of tuned choices."""


class Weight(NamedTuple):
    model: str
    what: str
    outputs: int
    inputs: int

    @property
    def key(self) -> str:
        return f"{self.outputs},{self.inputs}"

    @property
    def bytes(self) -> int:
        return 2 * self.outputs * self.inputs

    def __str__(self) -> str:
        return f"{self.model} {self.what} [{self.key}]"


WEIGHTS = [
    Weight("8b", "qkv", 6144, 4096),
    Weight("8b", "o", 4096, 4096),
    Weight("8b", "gate_up", 28672, 4096),
    Weight("8b", "down", 4096, 14336),
    Weight("8b", "head", 128256, 4096),
    Weight("0.6b", "qkv", 4096, 1024),
    Weight("0.6b", "o", 1024, 2048),
    Weight("0.6b", "gate_up", 6144, 1024),
    Weight("0.6b", "down", 1024, 3072),
    Weight("0.6b", "head", 151936, 1024),
]


class Pool:
    """One stretch of random memory that all weights are cut from, each call from another place."""

    def __init__(self) -> None:
        self.memory = (torch.randn(1_100_000_000, device=CUDA, dtype=torch.bfloat16)).mul_(1 / 64)
        torch.cuda.synchronize()

    def weights(self, outputs: int, inputs: int, least_bytes: int = 240_000_000) -> list[torch.Tensor]:
        """Different matrices, together beyond the L2 (one, where it is so large by itself)."""
        size = outputs * inputs
        count = min(max(1, -(-least_bytes // (2 * size))), self.memory.numel() // size)
        return [self.memory[n * size : (n + 1) * size].view(outputs, inputs) for n in range(count)]


def draw(tokens: int, width: int) -> torch.Tensor:
    drawn = torch.randn(tokens, width, device=CUDA, dtype=torch.bfloat16)
    torch.cuda.synchronize()
    return drawn


def time_over(weights: Sequence[torch.Tensor], call: Callable[[torch.Tensor], object]) -> float:
    """Microseconds per call, long enough for the start of a graph not to count."""
    least_calls = 48 if weights[0].nbytes < 40_000_000 else 8
    rotated = itertools.islice(itertools.cycle(weights), max(len(weights), least_calls))
    return graph_time_us([lambda weight=weight: call(weight) for weight in rotated], replays=7)


def poison(tokens: int, outputs: int) -> None:
    """The next output of this size takes the memory that this leaves behind."""
    torch.full((tokens, outputs), float("nan"), device=CUDA, dtype=torch.bfloat16)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


def in_float32(arguments: Sequence[object]) -> list[object]:
    return [each.float() if isinstance(each, torch.Tensor) else each for each in arguments]


def compile_ahead(calls: Sequence[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(COMPILERS) as compilers:
        list(compilers.map(lambda call: call(), calls))
    torch.cuda.synchronize()
