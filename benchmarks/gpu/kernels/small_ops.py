"""The small kernels of a step on the GPU: norms, gate, heads, bookkeeping. T tokens.

    PYTHONPATH=. python3 benchmarks/gpu/kernels/small_ops.py

Each is checked against its plain form, then timed over its candidate tiles, with dependent launch and
without; beside it, where it can be captured, the plain form, several kernels of torch. Predicted on an
H100: at T = 1 launch and latency (2 us with dependent launch, 3 without), at large T the bytes at 3.0 TB/s.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.gpu.kernels.linear_common import CUDA, compile_ahead, error
from benchmarks.gpu.timing import graph_time_us
from octavo.ops.activation import gated_silu
from octavo.ops.contract import Op
from octavo.ops.heads import prepare_heads
from octavo.ops.norm import add_rms_norm
from octavo.ops.step import SEQUENCES, SINGLES, TOKENS, append_tokens, gather_step, write_segments
from octavo.ops.triton import pdl
from octavo.ops.triton.activation import Tile
from octavo.ops.triton.heads import HeadTile

COPY_TBS = 3.0
L2_BYTES = 120e6
"""Buffers of a timing add up to this, more than twice the L2, or are as many as its calls."""
WRONG = 0.006
"""Relative error from which a bfloat16 result is more than rounded twice."""


@dataclass(kw_only=True)
class Case:
    """One op at one size."""

    op: Op[..., Any]
    size: str
    num_bytes: int
    make: Callable[[], tuple[Any, ...]]
    """New arguments in new memory."""
    tiles: Sequence[dict[str, Any]] = field(default_factory=lambda: [{}])
    compare: bool = False
    """The plain form can be captured."""

    @property
    def run(self) -> Callable[..., Any]:
        return self.op.on(CUDA)


def bf16(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=CUDA).bfloat16()


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=CUDA)


def norm_case(tokens: int, width: int, warps: Sequence[int]) -> Case:
    weight = bf16(width)
    return Case(
        op=add_rms_norm,
        size=f"T={tokens} E={width}",
        num_bytes=8 * tokens * width,
        make=lambda: (bf16(tokens, width), bf16(tokens, width), weight, 1e-5),
        tiles=[{"num_warps": count} for count in warps],
        compare=True,
    )


def silu_case(tokens: int, width: int, tiles: Sequence[Tile]) -> Case:
    return Case(
        op=gated_silu,
        size=f"T={tokens} F={width}",
        num_bytes=6 * tokens * width,
        make=lambda: (bf16(tokens, 2 * width),),
        tiles=[{"tile": tile} for tile in tiles],
        compare=True,
    )


def heads_case(tokens: int, heads: int, has_norms: bool, tiles: Sequence[HeadTile]) -> Case:
    kv_heads, width, block_size = 8, 128, 16
    num_blocks = 1 + -(-tokens // block_size)
    angles = torch.rand(16384, width // 2, device=CUDA) * 100
    rotation = torch.cat((angles.cos(), angles.sin()), -1)
    norms = (bf16(width), bf16(width)) if has_norms else (None, None)

    def make() -> tuple[Any, ...]:
        pages = torch.full(
            (num_blocks, 2, kv_heads, block_size, width), float("nan"), device=CUDA, dtype=torch.bfloat16
        )
        return (
            bf16(tokens, (heads + 2 * kv_heads) * width),
            torch.randint(0, 16384, (tokens,), device=CUDA, dtype=torch.int32),
            torch.randperm(num_blocks * block_size, device=CUDA, dtype=torch.int32)[:tokens],
            rotation,
            *norms,
            1e-6,
            pages[:, 0],
            pages[:, 1],
            heads,
        )

    return Case(
        op=prepare_heads,
        size=f"T={tokens} H={heads} K={kv_heads}{' norms' if has_norms else ''}",
        num_bytes=2 * tokens * width * ((heads + 2 * kv_heads) + (heads + 3 * kv_heads)),
        make=make,
        tiles=[{"tile": tile} for tile in tiles],
    )


def segments_case(segments: int, longest: int) -> Case:
    def make() -> tuple[Any, ...]:
        places = [(i % 1024, 7, longest, i * longest) for i in range(segments)]
        memory = torch.zeros(1024, longest + 7, dtype=torch.int32, device=CUDA)
        payload = torch.arange(1, segments * longest + 1, dtype=torch.int32, device=CUDA)
        return memory, payload, ints(places), longest

    return Case(
        op=write_segments, size=f"{segments} x {longest}", num_bytes=8 * segments * longest, make=make
    )


def gather_case(singles: int, chunks: int, chunk: int) -> Case:
    sizes = [1] * singles + [chunk] * chunks
    starts = [0, *itertools.accumulate(sizes)]
    counts = [0] * 8
    counts[SINGLES], counts[TOKENS], counts[SEQUENCES] = singles, starts[-1], len(sizes)
    memory = torch.randint(0, 1000, (1024, 9000 + 600), dtype=torch.int32, device=CUDA)

    def make() -> tuple[Any, ...]:
        tokens, positions, slots = torch.full((3, starts[-1]), -9, dtype=torch.int32, device=CUDA)
        rows = torch.randperm(1024, device=CUDA)[: len(sizes)].int()
        firsts = torch.randint(0, 800, (len(sizes),), device=CUDA).int()
        return memory, rows, ints(starts), firsts, ints(counts), [9000], 16, tokens, positions, slots[None]

    return Case(
        op=gather_step, size=f"{singles} singles, {chunks} x {chunk}", num_bytes=28 * starts[-1], make=make
    )


def append_case(rows: int) -> Case:
    def make() -> tuple[Any, ...]:
        memory = torch.zeros(1024, 64, dtype=torch.int32, device=CUDA)
        order = torch.randperm(1024, device=CUDA)[:rows].int()
        return memory, order, order % 64, torch.arange(rows, device=CUDA)

    return Case(op=append_tokens, size=f"R={rows}", num_bytes=52 * rows, make=make)


def cases() -> Iterator[Case]:
    for tokens in (1, 256, 8192):
        yield norm_case(tokens, 4096, (16, 8))
        yield norm_case(tokens, 1024, (4, 2))
        yield silu_case(tokens, 14336, (Tile(1024, 4), Tile(2048, 4), Tile(2048, 8)))
        yield silu_case(tokens, 3072, (Tile(1024, 4),))
        yield heads_case(tokens, 32, False, (HeadTile(8, 8), HeadTile(16, 16), HeadTile(16, 8)))
        yield heads_case(tokens, 16, True, (HeadTile(8, 8), HeadTile(16, 16)))
    yield from (
        gather_case(1, 0, 0),
        gather_case(256, 0, 0),
        gather_case(256, 1, 2048),
        gather_case(0, 16, 512),
    )
    yield from (segments_case(1, 1), segments_case(16, 8192), segments_case(1, 130_000), append_case(256))


def worst_error(case: Case, tile: dict[str, Any]) -> float:
    """Of results and written arguments, against the plain form in float32."""
    given = case.make()
    exact = [in_float32(value) if isinstance(value, torch.Tensor) else value for value in given]
    if given[0].is_floating_point():
        # New outputs take the memory that this leaves behind.
        poison = [torch.full_like(given[0], float("nan")) for _ in range(2)]
        del poison
    torch.cuda.synchronize()
    found, truth = case.run(*given, **tile), case.op.plain(*exact)
    pairs = [(given[i], exact[i]) for i in case.op.writes]
    if isinstance(found, torch.Tensor):
        pairs.append((found, truth))
    elif found is not None:
        pairs += zip(found, truth, strict=True)
    return max(difference(one, other) for one, other in pairs)


def in_float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value.clone()


def difference(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative; infinite where something was written that should not have been, or not what should."""
    is_written = truth.isfinite()
    if not torch.equal(found.isfinite(), is_written):
        return float("inf")
    return error(found[is_written], truth[is_written].float())


def time_us(case: Case, run: Callable[..., Any]) -> float:
    calls = 10 if case.num_bytes > 50e6 else 48
    given = [case.make() for _ in range(min(calls, max(2, int(L2_BYTES // case.num_bytes) + 1)))]
    torch.cuda.synchronize()
    rotated = itertools.islice(itertools.cycle(given), calls)
    return graph_time_us([lambda arguments=arguments: run(*arguments) for arguments in rotated], replays=7)


def compile_all(jobs: Sequence[tuple[Case, dict[str, Any]]]) -> None:
    distinct = {(case.op.name, case.size.split(" ", 1)[-1], str(tile)): (case, tile) for case, tile in jobs}
    compile_ahead(
        [lambda case=case, tile=tile: case.run(*case.make(), **tile) for case, tile in distinct.values()]
    )


def report(case: Case, what: str, us: float, more: str = "") -> None:
    tbs = case.num_bytes / us / 1e6
    print(
        f"{case.op.name:15}{case.size:28}{what:44}{us:9.2f} us {tbs:6.2f} TB/s {tbs / COPY_TBS:5.2f}{more}",
        flush=True,
    )


def main() -> None:
    torch.manual_seed(0)
    found = list(cases())
    compile_all([(case, tile) for case in found for tile in case.tiles])
    best: dict[str, tuple[float, str]] = {}
    for case in found:
        for tile in case.tiles:
            wrong = worst_error(case, tile)
            us = time_us(case, lambda *arguments, tile=tile, case=case: case.run(*arguments, **tile))
            what = " ".join(
                f"{name}={tuple(value) if isinstance(value, tuple) else value}"
                for name, value in tile.items()
            )
            report(case, what, us, "" if wrong < WRONG else f"  WRONG {wrong:.4f}")
            key = f"{case.op.name} {case.size}"
            best[key] = min(best.get(key, (us, what)), (us, what))
        if case.compare:
            report(case, "plain torch", time_us(case, case.op.plain))
    pdl.ENABLED = False
    small = [case for case in found if case.size.startswith("T=1 ")]
    compile_all([(case, {}) for case in small])
    for case in small:
        report(case, "without dependent launch", time_us(case, case.run))
    print(json.dumps({key: {"us": round(us, 2), "tile": what} for key, (us, what) in best.items()}))


if __name__ == "__main__":
    main()
