"""Linear layers on the GPU: our few-token and batch-invariant kernels beside cuBLAS, at the shapes of two models.

    PYTHONPATH=. python3 benchmarks/gpu/kernels/linear.py [cublas] [matvec] [chain] [invariant]

Without a name all four run. Weights rotate past the L2. `matvec` and `invariant` try candidate tiles and end with
the JSON to put into octavo/ops/triton/tuned/linear.json. T tokens, I input, O output.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import NamedTuple

import torch

from benchmarks.gpu.timing import graph_time_us
from octavo.ops.matmul_invariant import matmul_invariant
from octavo.ops.matvec import matvec
from octavo.ops.triton import matmul_invariant as invariant_kernels
from octavo.ops.triton import matvec as matvec_kernels
from octavo.ops.triton import pdl
from octavo.ops.triton.matmul_invariant import InvariantTile
from octavo.ops.triton.matvec import MatvecTile
from octavo.ops.triton.tuning import gpu_names, tuned

COPY_TBS = 3.0
"""What a large copy reaches on an H100: the ceiling for reading weights."""

COMPILERS = 12
CUDA = torch.device("cuda")


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


# cuBLAS


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


# The few-token kernel


def tile_choices(weight: Weight, tokens: int) -> list[MatvecTile]:
    table = MATVEC_TILES if tokens == 1 else MORE_TOKENS_TILES
    return [MatvecTile(*choice) for choice in table[weight.inputs]]


def matvec_sweep(pool: Pool, best: dict[str, dict[str, dict[str, int]]]) -> None:
    def compiling() -> Iterator[Callable[[], object]]:
        for tokens in (1, 2, 4):
            for inputs in MATVEC_TILES:
                x, weight = draw(tokens, inputs), pool.weights(1024, inputs)[0]
                for tile in tile_choices(Weight("", "", 0, inputs), tokens):
                    yield lambda x=x, w=weight, tile=tile: matvec_kernels.launch(x, w, tile=tile)

    compile_ahead(list(compiling()))
    print(
        "matvec: us (GB/s) of each tile block_o x block_i x warps, * the best; cuBLAS; the best without overlap"
    )
    for tokens, weight in itertools.product((1, 2, 4), WEIGHTS):
        weights = pool.weights(weight.outputs, weight.inputs)
        x = draw(tokens, weight.inputs)
        exact = torch.nn.functional.linear(x.float(), weights[0].float())
        times: dict[MatvecTile, float] = {}
        for tile in tile_choices(weight, tokens):
            poison(tokens, weight.outputs)
            wrong = error(matvec_kernels.launch(x, weights[0], tile=tile), exact)
            if not wrong < 0.004:
                print(f"WRONG {weight} T={tokens} {tile}: error {wrong:.4f}")
                continue
            times[tile] = time_over(weights, lambda w, x=x, t=tile: matvec_kernels.launch(x, w, tile=t))
        if not times:
            continue
        winner = min(times, key=times.__getitem__)
        best.setdefault(f"matvec_{tokens}", {})[weight.key] = asdict(winner)
        shown = " ".join(
            f"{tile.block_o}x{tile.block_i}x{tile.warps}{'*' if tile == winner else ''} {time:.1f}"
            for tile, time in times.items()
        )
        rate = weight.bytes / times[winner] / 1e6
        alone = without_overlap(weights, x, winner) if tokens == 1 else float("nan")
        library = cublas_us(weights, tokens)
        print(
            f"T={tokens} {weight!s:28} {rate * 1e3:5.0f} GB/s ({rate / COPY_TBS:.2f}) "
            f"cublas {library:.1f} alone {alone:.1f} | {shown}",
            flush=True,
        )


def without_overlap(weights: Sequence[torch.Tensor], x: torch.Tensor, tile: MatvecTile) -> float:
    pdl.ENABLED = False
    try:
        return time_over(weights, lambda weight: matvec_kernels.launch(x, weight, tile=tile))
    finally:
        pdl.ENABLED = True


# One layer's four products in a row


class Layer(NamedTuple):
    qkv: torch.Tensor
    o: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def layers_of(pool: Pool, model: str) -> list[Layer]:
    shapes = [(each.outputs, each.inputs) for each in WEIGHTS if each.model == model and each.what != "head"]
    size = sum(outputs * inputs for outputs, inputs in shapes)
    layers, count = [], min(28, pool.memory.numel() // size)
    for n in range(count):
        parts, at = [], n * size
        for outputs, inputs in shapes:
            parts.append(pool.memory[at : at + outputs * inputs].view(outputs, inputs))
            at += outputs * inputs
        layers.append(Layer(*parts))
    return layers


def chain(pool: Pool, best: dict[str, dict[str, dict[str, int]]]) -> None:
    """QKV, O, gate/up and down after one another, with norms, gate and residuals inside, as a layer has them."""
    print(
        "chain: us of one layer's four products with norm, gate and residual inside, and their share of the copy rate"
    )
    for model in ("8b", "0.6b"):
        layers = layers_of(pool, model)
        hidden, heads = layers[0].qkv.shape[1], layers[0].o.shape[1]
        x, attended, norm = draw(1, hidden), draw(1, heads), draw(1, hidden)[0]

        def fused(layer: Layer, prefetch_kib: int, x=x, attended=attended, norm=norm) -> None:
            def run(a: torch.Tensor, weight: torch.Tensor, *more: object) -> torch.Tensor:
                tile = best_tile(best, weight, prefetch_kib)
                return matvec_kernels.launch(a, weight, None, *more, tile=tile)

            run(x, layer.qkv, norm, 1e-5)
            after = run(attended, layer.o, None, 0.0, x)
            inner = run(after, layer.gate_up, norm, 1e-5, None, True)
            run(inner, layer.down, None, 0.0, after)

        def library(layer: Layer, x=x, attended=attended) -> None:
            linear = torch.nn.functional.linear
            linear(x, layer.qkv)
            linear(attended, layer.o)
            inner = linear(x, layer.gate_up)[:, : layer.down.shape[1]]
            linear(inner, layer.down)

        check_fused(layers[0], x, attended, norm, best)
        fused(layers[0], 0)
        floor = 2 * sum(each.numel() for each in layers[0]) / COPY_TBS / 1e6
        rows = {"cuBLAS, products alone": graph_time_us([lambda y=y: library(y) for y in layers])}
        for kib in (0, 32, 64, 128):
            calls = [lambda y=y, kib=kib: fused(y, kib) for y in layers]
            rows[f"ours, {kib} KiB a processor ahead"] = graph_time_us(calls)
        pdl.ENABLED = False
        rows["ours, without overlap"] = graph_time_us([lambda y=y: fused(y, 0) for y in layers])
        pdl.ENABLED = True
        for what, time in rows.items():
            print(f"{model:5} {what:36} {time:7.2f} us  {floor / time:.2f}", flush=True)


def best_tile(
    best: dict[str, dict[str, dict[str, int]]], weight: torch.Tensor, prefetch_kib: int
) -> MatvecTile:
    """What this run found, or what the file or the rule of thumb says."""
    outputs, inputs = weight.shape
    found = best.get("matvec_1", {}).get(f"{outputs},{inputs}") or tuned(CUDA0, "matvec_1", outputs, inputs)
    tile = MatvecTile(**found) if found else matvec_kernels.usual_tile(CUDA0, outputs, inputs, 1, 2)
    return MatvecTile(tile.block_o, tile.block_i, tile.warps, prefetch_kib)


def check_fused(
    layer: Layer,
    x: torch.Tensor,
    attended: torch.Tensor,
    norm: torch.Tensor,
    best: dict[str, dict[str, dict[str, int]]],
) -> None:
    for arguments in (
        (x, layer.qkv, None, norm, 1e-5),
        (attended, layer.o, None, None, 0.0, x),
        (x, layer.gate_up, None, norm, 1e-5, None, True),
    ):
        for kib in (0, 64):
            poison(1, x.shape[1])
            found = matvec_kernels.launch(*arguments, tile=best_tile(best, arguments[1], kib))
            wrong = error(found, matvec.plain(*in_float32(arguments)))
            if not wrong < 0.004:
                print(f"WRONG fused {tuple(arguments[1].shape)} prefetch {kib}: error {wrong:.4f}")


# The batch-invariant product


def invariant_sweep(pool: Pool, best: dict[str, dict[str, dict[str, int]]]) -> None:
    small = pool.weights(1024, 1024)[0]
    compile_ahead(
        [
            lambda x=draw(tokens, 1024), tile=tile: invariant_kernels.launch(x, small, tile=tile)
            for tokens in (64, 256)
            for tile in INVARIANT_TILES
        ]
    )
    print(
        f"invariant: us at T = {INVARIANT_TOKENS} (share of cuBLAS' speed), tiles block_o x block_i x stages"
    )
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
    """The speed over cuBLAS' for each number of tokens, 0 where the result is wrong or differs between batches."""
    shares = []
    crowd = draw(INVARIANT_TOKENS[-1], weight.inputs)
    together = invariant_kernels.launch(crowd, weights[0], tile=tile)
    exact = matmul_invariant.plain(crowd[:64].float(), weights[0].float())
    for tokens, library_us in zip(INVARIANT_TOKENS, library, strict=True):
        x = crowd[:tokens]
        poison(tokens, weight.outputs)
        found = invariant_kernels.launch(x, weights[0], tile=tile)
        right = torch.equal(found, together[:tokens]) and error(found[:64], exact[:tokens]) < 0.004
        time = time_over(weights, lambda w, x=x: invariant_kernels.launch(x, w, tile=tile))
        shares.append(library_us / time if right else 0.0)
    return shares


CUDA0 = torch.device("cuda", 0)


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
    print(json.dumps({gpu_names(CUDA0)[-1]: best}))


if __name__ == "__main__":
    main()
