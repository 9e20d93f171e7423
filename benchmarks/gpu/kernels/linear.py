"""Linear layers on the GPU: our few-token and batch-invariant kernels beside cuBLAS, for two models.

    PYTHONPATH=. python3 benchmarks/gpu/kernels/linear.py [cublas] [matvec] [chain] [invariant]

Without a name all four run. Weights rotate past the L2. `matvec` and `invariant` try candidate tiles and end
with the JSON to put into octavo/ops/triton/tuned/linear.json. T tokens, I input, O output.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import torch

from benchmarks.gpu.kernels.linear_chain import chain, with_overlap
from benchmarks.gpu.kernels.linear_common import (
    COPY_TBS,
    CUDA,
    WEIGHTS,
    WRONG,
    Best,
    Pool,
    Weight,
    compile_ahead,
    draw,
    error,
    poison,
    time_over,
)
from octavo.ops.matmul_invariant import matmul_invariant
from octavo.ops.triton import matmul_invariant as invariant_kernels
from octavo.ops.triton import matvec as matvec_kernels
from octavo.ops.triton.matmul_invariant import InvariantTile
from octavo.ops.triton.matvec import MatvecTile
from octavo.ops.triton.tuning import gpu_names

MATVEC_TILES = {  # by I: (block_o, block_i, warps)
    1024: [(8, 1024, 4), (4, 1024, 4), (16, 1024, 4), (8, 1024, 2)],
    2048: [(2, 2048, 4), (4, 2048, 4), (4, 2048, 8), (8, 2048, 8)],
    3072: [(2, 4096, 4), (4, 4096, 8), (2, 1024, 4), (4, 1024, 4)],
    4096: [(4, 4096, 8), (2, 4096, 4), (8, 4096, 8), (8, 1024, 4), (4, 2048, 8)],
    14336: [(4, 2048, 4), (4, 2048, 8), (8, 1024, 4), (2, 4096, 4)],
}
MORE_TOKENS_TILES = {  # for 2 and 4 tokens, whose sums take registers
    1024: [(8, 1024, 4), (4, 1024, 4)],
    2048: [(2, 2048, 4), (4, 2048, 8)],
    3072: [(2, 4096, 4), (4, 4096, 8)],
    4096: [(4, 4096, 8), (4, 1024, 4)],
    14336: [(4, 2048, 8), (4, 1024, 4)],
}
INVARIANT_TILES = [  # (block_o, block_i, stages)
    InvariantTile(32, 64, 4),
    InvariantTile(64, 64, 4),
    InvariantTile(64, 128, 4),
    InvariantTile(128, 64, 4),
    InvariantTile(128, 128, 3),
    InvariantTile(256, 64, 3),
]
INVARIANT_TOKENS = (1, 64, 256, 512)
CUBLAS_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def cublas(pool: Pool) -> None:
    print(f"cuBLAS, us; T = {CUBLAS_TOKENS}; GB/s at T=1; then x @ W for W stored [I,O] at T=256, 512")
    for weight in WEIGHTS:
        weights = pool.weights(weight.outputs, weight.inputs)
        times = [cublas_us(weights, tokens) for tokens in CUBLAS_TOKENS]
        turned = [each.view(weight.inputs, weight.outputs) for each in weights]
        other = [cublas_turned_us(turned, tokens) for tokens in (256, 512)]
        line = " ".join(f"{time:7.1f}" for time in times)
        turned_line = " ".join(f"{time:7.1f}" for time in other)
        print(f"{weight!s:28} {line}  {weight.bytes / times[0] / 1e3:5.0f} GB/s | {turned_line}", flush=True)


def cublas_us(weights: Sequence[torch.Tensor], tokens: int) -> float:
    x = draw(tokens, weights[0].shape[1])
    return time_over(weights, lambda weight: torch.nn.functional.linear(x, weight))


def cublas_turned_us(weights: Sequence[torch.Tensor], tokens: int) -> float:
    x = draw(tokens, weights[0].shape[0])
    return time_over(weights, lambda weight: x @ weight)


def tile_choices(inputs: int, tokens: int) -> list[MatvecTile]:
    table = MATVEC_TILES if tokens == 1 else MORE_TOKENS_TILES
    return [MatvecTile(*choice) for choice in table[inputs]]


def matvec_sweep(pool: Pool, best: Best) -> None:
    compile_ahead(list(each_kernel(pool, (1, 2, 4))))
    with_overlap(False, lambda: compile_ahead(list(each_kernel(pool, (1,)))))
    print("matvec: us of each tile block_o x block_i x warps, * the best; alone: the best without overlap")
    for tokens, weight in itertools.product((1, 2, 4), WEIGHTS):
        weights = pool.weights(weight.outputs, weight.inputs)
        x = draw(tokens, weight.inputs)
        exact = torch.nn.functional.linear(x.float(), weights[0].float())
        times: dict[MatvecTile, float] = {}
        for tile in tile_choices(weight.inputs, tokens):
            poison(tokens, weight.outputs)
            wrong = error(matvec_kernels.launch(x, weights[0], tile=tile), exact)
            if not wrong < WRONG:
                print(f"WRONG {weight} T={tokens} {tile}: error {wrong:.4f}")
                continue
            times[tile] = timed(weights, x, tile)
        if not times:
            continue
        winner = min(times, key=times.__getitem__)
        best.setdefault(f"matvec_{tokens}", {})[weight.key] = asdict(winner)
        shown = " ".join(
            f"{tile.block_o}x{tile.block_i}x{tile.warps}{'*' if tile == winner else ''} {time:.1f}"
            for tile, time in times.items()
        )
        rate = weight.bytes / times[winner] / 1e6
        alone = float("nan")
        if tokens == 1:
            alone = with_overlap(False, lambda w=weights, x=x, tile=winner: timed(w, x, tile))
        library = cublas_us(weights, tokens)
        print(
            f"T={tokens} {weight!s:28} {rate * 1e3:5.0f} GB/s ({rate / COPY_TBS:.2f}) "
            f"cublas {library:.1f} alone {alone:.1f} | {shown}",
            flush=True,
        )


def each_kernel(pool: Pool, numbers: Sequence[int]) -> Iterator[Callable[[], object]]:
    """A call of every kernel that the sweep will time, for compiling ahead."""
    for tokens, inputs in itertools.product(numbers, MATVEC_TILES):
        x, weight = draw(tokens, inputs), pool.weights(1024, inputs)[0]
        for tile in tile_choices(inputs, tokens):
            yield lambda x=x, weight=weight, tile=tile: matvec_kernels.launch(x, weight, tile=tile)


def timed(weights: Sequence[torch.Tensor], x: torch.Tensor, tile: MatvecTile) -> float:
    return time_over(weights, lambda weight: matvec_kernels.launch(x, weight, tile=tile))


def invariant_sweep(pool: Pool, best: Best) -> None:
    small, inputs = pool.weights(1024, 1024)[0], [draw(tokens, 1024) for tokens in (64, 256)]
    compile_ahead(
        [
            lambda x=x, tile=tile: invariant_kernels.launch(x, small, tile=tile)
            for x, tile in itertools.product(inputs, INVARIANT_TILES)
        ]
    )
    print(f"invariant: us at T = {INVARIANT_TOKENS} (cuBLAS' time over it), tiles block_o x block_i x stages")
    for weight in WEIGHTS:
        weights = pool.weights(weight.outputs, weight.inputs)
        library = [cublas_us(weights, tokens) for tokens in INVARIANT_TOKENS]
        shares = {tile: invariant_shares(weight, weights, tile, library) for tile in INVARIANT_TILES}
        winner = max(shares, key=lambda tile: sum(shares[tile]) + min(shares[tile]))
        best.setdefault("matmul_invariant", {})[weight.key] = asdict(winner)
        for tile, per_tokens in shares.items():
            name = f"{tile.block_o}x{tile.block_i}x{tile.stages}{'*' if tile == winner else ''}"
            line = " ".join(
                f"{time / share:7.1f} ({share:.2f})" if share else "  wrong"
                for time, share in zip(library, per_tokens, strict=True)
            )
            print(f"{weight!s:28} {name:12} {line}", flush=True)


def invariant_shares(
    weight: Weight, weights: Sequence[torch.Tensor], tile: InvariantTile, library: Sequence[float]
) -> list[float]:
    """Speed over cuBLAS' for each number of tokens; 0 where it is wrong or differs between batches."""
    shares = []
    crowd = draw(INVARIANT_TOKENS[-1], weight.inputs)
    together = invariant_kernels.launch(crowd, weights[0], tile=tile)
    exact = matmul_invariant.plain(crowd[:64].float(), weights[0].float())
    for tokens, library_us in zip(INVARIANT_TOKENS, library, strict=True):
        x = crowd[:tokens]
        poison(tokens, weight.outputs)
        found = invariant_kernels.launch(x, weights[0], tile=tile)
        right = torch.equal(found, together[:tokens]) and error(found[:64], exact[:tokens]) < WRONG
        time = time_over(weights, lambda w, x=x: invariant_kernels.launch(x, w, tile=tile))
        shares.append(library_us / time if right else 0.0)
    return shares


def main() -> None:
    wanted = set(sys.argv[1:]) or {"cublas", "matvec", "chain", "invariant"}
    torch.manual_seed(0)
    pool, best = Pool(), {}
    if "cublas" in wanted:
        cublas(pool)
    if "matvec" in wanted:
        matvec_sweep(pool, best)
    if "chain" in wanted:
        chain(pool, best)
    if "invariant" in wanted:
        invariant_sweep(pool, best)
    print(json.dumps({gpu_names(CUDA)[-1]: best}))


if __name__ == "__main__":
    main()
