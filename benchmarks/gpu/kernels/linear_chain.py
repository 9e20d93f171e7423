"""One layer's four products in a row, with norms, gate and residuals inside, as a model has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch

from benchmarks.gpu.kernels.linear_common import (
    COPY_TBS,
    CUDA,
    WEIGHTS,
    WRONG,
    Best,
    Pool,
    compile_ahead,
    draw,
    error,
    in_float32,
    poison,
)
from benchmarks.gpu.timing import graph_time_us
from octavo.ops.matvec import matvec
from octavo.ops.triton import matvec as matvec_kernels
from octavo.ops.triton import pdl
from octavo.ops.triton.matvec import MatvecTile
from octavo.ops.triton.tuning import tuned

T = TypeVar("T")


class Layer(NamedTuple):
    qkv: torch.Tensor
    o: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Inputs(NamedTuple):
    x: torch.Tensor
    attended: torch.Tensor
    norm: torch.Tensor


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


def chain(pool: Pool, best: Best) -> None:
    """QKV, O, gate/up and down after one another. cuBLAS has the products alone, ours all of it."""
    print("chain: us of one layer's four products and the share of the copy rate")
    for model in ("8b", "0.6b"):
        layers = layers_of(pool, model)
        hidden, heads = layers[0].qkv.shape[1], layers[0].o.shape[1]
        inputs = Inputs(draw(1, hidden), draw(1, heads), draw(1, hidden)[0])
        compile_ahead(products(layers[0], inputs, best))
        with_overlap(False, lambda ys=layers, i=inputs: compile_ahead(products(ys[0], i, best)))
        check(layers[0], inputs, best)
        rows = {"cuBLAS, products alone": chain_us(layers, lambda y, i=inputs: library(y, i))}
        for kib in (0, 32, 64, 128):
            rows[f"ours, {kib} KiB a processor ahead"] = chain_us(
                layers, lambda y, i=inputs, kib=kib: fused(y, i, best, kib)
            )
        rows["ours, without overlap"] = with_overlap(
            False, lambda ys=layers, i=inputs: chain_us(ys, lambda y: fused(y, i, best, 0))
        )
        floor = 2 * sum(each.numel() for each in layers[0]) / COPY_TBS / 1e6
        for what, time in rows.items():
            print(f"{model:5} {what:36} {time:7.2f} us  {floor / time:.2f}", flush=True)


def chain_us(layers: list[Layer], run: Callable[[Layer], object]) -> float:
    return graph_time_us([lambda layer=layer: run(layer) for layer in layers])


def with_overlap(enabled: bool, run: Callable[[], T]) -> T:
    """What `run` says with kernels that may, or may not, start while others drain."""
    before, pdl.ENABLED = pdl.ENABLED, enabled
    try:
        return run()
    finally:
        pdl.ENABLED = before


def products(layer: Layer, inputs: Inputs, best: Best) -> list[Callable[[], object]]:
    """Each product of `fused` by itself."""
    return [
        lambda each=each: matvec_kernels.launch(*each, tile=best_tile(best, each[1]))
        for each in arguments(layer, inputs)
    ]


def arguments(layer: Layer, inputs: Inputs) -> list[tuple[object, ...]]:
    x, attended, norm = inputs
    inner = draw(1, layer.down.shape[1])
    return [
        (x, layer.qkv, None, norm, 1e-5),
        (attended, layer.o, None, None, 0.0, x),
        (x, layer.gate_up, None, norm, 1e-5, None, True),
        (inner, layer.down, None, None, 0.0, x),
    ]


def fused(layer: Layer, inputs: Inputs, best: Best, prefetch_kib: int) -> None:
    def run(x: torch.Tensor, weight: torch.Tensor, *more: object) -> torch.Tensor:
        return matvec_kernels.launch(x, weight, None, *more, tile=best_tile(best, weight, prefetch_kib))

    x, attended, norm = inputs
    run(x, layer.qkv, norm, 1e-5)
    after = run(attended, layer.o, None, 0.0, x)
    inner = run(after, layer.gate_up, norm, 1e-5, None, True)
    run(inner, layer.down, None, 0.0, after)


def library(layer: Layer, inputs: Inputs) -> None:
    linear = torch.nn.functional.linear
    linear(inputs.x, layer.qkv)
    linear(inputs.attended, layer.o)
    inner = linear(inputs.x, layer.gate_up)[:, : layer.down.shape[1]]
    linear(inner, layer.down)


def best_tile(best: Best, weight: torch.Tensor, prefetch_kib: int = 0) -> MatvecTile:
    """What this run found, or what the file or the rule of thumb says."""
    outputs, inputs = weight.shape
    found = best.get("matvec_1", {}).get(f"{outputs},{inputs}") or tuned(CUDA, "matvec_1", outputs, inputs)
    tile = MatvecTile(**found) if found else matvec_kernels.usual_tile(CUDA, outputs, inputs, 1, 2)
    return MatvecTile(tile.block_o, tile.block_i, tile.warps, prefetch_kib)


def check(layer: Layer, inputs: Inputs, best: Best) -> None:
    for each in arguments(layer, inputs):
        exact = matvec.plain(*in_float32(each))
        for kib in (0, 64):
            poison(*exact.shape)
            wrong = error(matvec_kernels.launch(*each, tile=best_tile(best, each[1], kib)), exact)
            if not wrong < WRONG:
                print(f"WRONG fused {tuple(each[1].shape)} prefetch {kib}: error {wrong:.4f}")
