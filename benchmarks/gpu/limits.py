"""What the machine allows at best: the fewest bytes and operations of a workload over measured rates.

The rates are those of one H100 80GB (SXM): copying 4 GiB, and an 8192-cubed bfloat16 product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu.shapes import Shape
from benchmarks.gpu.workloads import SHARED_PREFIX, Lengths, lengths

COPY_BYTES_PER_S = 3.014e12
PRODUCT_FLOP_PER_S = 746e12


@dataclass(frozen=True)
class Work:
    """The least a workload can move and compute."""

    bytes: float
    flop: float

    @property
    def bytes_s(self) -> float:
        return self.bytes / COPY_BYTES_PER_S

    @property
    def flop_s(self) -> float:
        return self.flop / PRODUCT_FLOP_PER_S

    @property
    def seconds(self) -> float:
        """Both at once, perfectly overlapped."""
        return max(self.bytes_s, self.flop_s)


def decode_step(shape: Shape, batch: int, context: float) -> Work:
    """One token for each of `batch` sequences with `context` tokens each, nothing shared."""
    kv_tokens = batch * context
    return Work(
        bytes=shape.weight_bytes + kv_tokens * shape.kv_bytes_per_token,
        flop=batch * 2 * (shape.layer_product_elements + shape.head_elements)
        + kv_tokens * _attention_flop_per_pair(shape),
    )


def whole_run(shape: Shape, sizes: Sequence[Lengths], shared_prefix: int = 0) -> Work:
    """All requests at once in the fewest steps; a shared prefix is computed once and read once a step.

    Reading KV while prompts are computed is left out: it hides behind the arithmetic.
    """
    repeats = shared_prefix * (len(sizes) - 1)
    prompt_tokens = sum(size.input for size in sizes) - repeats
    decode_tokens = sum(size.output - 1 for size in sizes)
    prompt_pairs = sum(_triangle(size.input) for size in sizes)
    prompt_pairs -= _triangle(shared_prefix) * (len(sizes) - 1)
    decode_pairs = sum((size.output - 1) * size.input + _triangle(size.output - 1) for size in sizes)
    steps = max(size.output for size in sizes)
    kv_reads = decode_pairs - repeats * (steps - 1)
    sampled = decode_tokens + len(sizes)
    return Work(
        bytes=steps * shape.weight_bytes + kv_reads * shape.kv_bytes_per_token,
        flop=2 * (prompt_tokens + decode_tokens) * shape.layer_product_elements
        + 2 * sampled * shape.head_elements
        + (prompt_pairs + decode_pairs) * _attention_flop_per_pair(shape),
    )


def workload_seconds(name: str, shape: Shape) -> float:
    """Least wall time of W1, W3 or W4."""
    return whole_run(shape, lengths(name), SHARED_PREFIX if name == "W4" else 0).seconds


def step_ms(name: str, shape: Shape) -> float:
    """Least time of a decode step of W2 or W5, at the workload's mean context."""
    size = lengths(name)[0]
    return decode_step(shape, len(lengths(name)), size.input + size.output / 2).seconds * 1e3


def _attention_flop_per_pair(shape: Shape) -> int:
    """Scores and weighted sum of one query token and one key token, all heads of all layers."""
    return 4 * shape.query_width * shape.num_layers


def _triangle(count: int) -> int:
    """Pairs of a token and itself or an earlier one."""
    return count * (count + 1) // 2
