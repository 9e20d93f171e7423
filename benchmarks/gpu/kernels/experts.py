"""The experts op alone on the GPU: its time at several numbers of tokens, and which tiles are best.

    PYTHONPATH=. python3 benchmarks/gpu/kernels/experts.py [--shape qwen3-30b-a3b] [--sweep]

`--sweep` tries candidate tiles for each product and form and ends with the JSON to put into
octavo/ops/triton/tuned/linear.json. Experts are chosen at random, others in each call, so that weights come
from memory; bytes are those of the experts that were chosen.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.kernels.linear_common import CUDA, WRONG, Best, error
from benchmarks.gpu.limits import COPY_BYTES_PER_S, PRODUCT_FLOP_PER_S
from benchmarks.gpu.moe_shapes import MOE_SHAPES, QWEN3_30B_A3B, ExpertSizes, expert_sizes
from benchmarks.gpu.timing import graph_time_us
from octavo.ops.experts import experts, experts_by_group, experts_invariant
from octavo.ops.routing import Routing, route
from octavo.ops.triton.expert_tiles import FORMS, INVARIANT, ExpertForm, ExpertTile
from octavo.ops.triton.experts import launch
from octavo.ops.triton.tuning import gpu_names

TOKENS = (1, 16, 256, 2048)
SWEPT_TOKENS = {"few": (1, 8), "some": (64,), "many": (256, 1024), "most": (4096,), "invariant": (1, 256)}
NARROW = [
    ExpertTile(*choice)
    for choice in ((16, 128, 4, 4), (16, 256, 4, 4), (32, 128, 4, 4), (32, 256, 4, 3), (64, 128, 4, 4))
]
WIDE = [
    ExpertTile(*choice)
    for choice in ((64, 64, 4, 4), (128, 64, 4, 4), (128, 64, 8, 4), (128, 128, 8, 3), (256, 64, 8, 3))
]
CANDIDATES = {"few": NARROW, "some": [*NARROW, *WIDE[:2]], "many": WIDE, "most": WIDE, "invariant": WIDE}


class Call(NamedTuple):
    """Arguments of the op."""

    x_TE: torch.Tensor
    experts_TK: torch.Tensor
    weights_TK: torch.Tensor
    gate_up_XGE: torch.Tensor
    down_XEF: torch.Tensor

    @property
    def num_touched(self) -> int:
        return len(self.experts_TK.unique())


def make_weights(sizes: ExpertSizes, copies: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """As many layers' experts: together well beyond the L2."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=CUDA, dtype=torch.bfloat16).mul_(1 / 32)

    count, width, inner = sizes.num_experts, sizes.width, sizes.inner
    return [(draw(count, 2 * inner, width), draw(count, width, inner)) for _ in range(copies)]


def make_calls(
    sizes: ExpertSizes, weights: Sequence[tuple[torch.Tensor, torch.Tensor]], tokens: int, count: int
) -> list[Call]:
    calls = []
    for matrices in itertools.islice(itertools.cycle(weights), count):
        scores_TX = torch.randn(tokens, sizes.num_experts, device=CUDA)
        weights_TK, experts_TK = scores_TX.softmax(-1).topk(sizes.num_chosen)
        x_TE = torch.randn(tokens, sizes.width, device=CUDA, dtype=torch.bfloat16)
        calls.append(Call(x_TE, experts_TK.int(), weights_TK, *matrices))
    torch.cuda.synchronize()
    return calls


def limit_us(sizes: ExpertSizes, calls: Sequence[Call], copy_bytes_per_s: float = COPY_BYTES_PER_S) -> float:
    """Chosen experts are read, tokens are read and written; or the products, where these take longer."""
    touched = sum(call.num_touched for call in calls) / len(calls)
    tokens = len(calls[0].x_TE)
    num_bytes = touched * sizes.expert_bytes + 4 * tokens * sizes.width
    seconds = max(num_bytes / copy_bytes_per_s, tokens * sizes.flop_per_token / PRODUCT_FLOP_PER_S)
    return seconds * 1e6


def table(
    sizes: ExpertSizes, copy_bytes_per_s: float = COPY_BYTES_PER_S, numbers: Sequence[int] = TOKENS
) -> list[dict[str, Any]]:
    """One row a number of tokens: microseconds of experts, their invariant form and the router."""
    weights, rows = make_weights(sizes), []
    router_XE = torch.randn(sizes.num_experts, sizes.width, device=CUDA, dtype=torch.bfloat16)
    routing = Routing(num_chosen=sizes.num_chosen)
    run, run_invariant, run_route = (op.on(CUDA) for op in (experts, experts_invariant, route))
    for tokens in numbers:
        calls = make_calls(sizes, weights, tokens, 24 if tokens < 256 else 6)
        found, exact = run(*calls[0]), exact_result(calls[0])
        row = {
            "tokens": tokens,
            "experts_touched": sum(call.num_touched for call in calls) / len(calls),
            "us": graph_time_us([lambda call=call: run(*call) for call in calls]),
            "limit_us": limit_us(sizes, calls, copy_bytes_per_s),
            "invariant_us": graph_time_us([lambda call=call: run_invariant(*call) for call in calls]),
            "route_us": graph_time_us(
                [lambda call=call: run_route(call.x_TE, router_XE, None, None, routing) for call in calls]
            ),
            "error": error(found, exact),
        }
        row["of_limit"] = row["limit_us"] / row["us"]
        print(show(row), flush=True)
        rows.append(row)
    return rows


def exact_result(call: Call) -> torch.Tensor:
    return experts_by_group(
        call.x_TE.float(),
        call.experts_TK,
        call.weights_TK,
        call.gate_up_XGE.float(),
        call.down_XEF.float(),
    )


def show(row: dict[str, Any]) -> str:
    wrong = "" if row["error"] < WRONG else f"  WRONG: error {row['error']:.4f}"
    return (
        f"experts T={row['tokens']:5} touched {row['experts_touched']:5.1f}: {row['us']:8.1f} us, limit "
        f"{row['limit_us']:7.1f} us ({row['of_limit']:.2f}); invariant {row['invariant_us']:8.1f} us; route "
        f"{row['route_us']:5.1f} us{wrong}"
    )


def sweep(sizes: ExpertSizes) -> Best:
    """The best tile of each product and form, by the sum of its times."""
    weights, best = make_weights(sizes), {}
    for form in (*FORMS, INVARIANT):
        sets = [make_calls(sizes, weights, tokens, 12) for tokens in SWEPT_TOKENS[form.name]]
        for product, key in (
            ("gate_up", f"{2 * sizes.inner},{sizes.width}"),
            ("down", f"{sizes.width},{sizes.inner}"),
        ):
            times = tile_times(sets, form, product)
            winner = min(times, key=lambda tile: sum(times[tile]))
            best.setdefault(f"experts_{product}_{form.name}", {})[key] = asdict(winner)
            shown = " ".join(
                f"{tile.block_o}x{tile.block_i}x{tile.warps}x{tile.stages}{'*' if tile == winner else ''} "
                + "/".join(f"{time:.1f}" for time in of_tile)
                for tile, of_tile in times.items()
            )
            print(f"{form.name:9} {product:7} T={SWEPT_TOKENS[form.name]}: {shown}", flush=True)
    return best


def tile_times(
    sets: Sequence[Sequence[Call]], form: ExpertForm, product: str
) -> dict[ExpertTile, list[float]]:
    """Microseconds for each set of calls."""
    candidates = CANDIDATES[form.name]
    return {tile: [tile_us(calls, form, product, tile) for calls in sets] for tile in candidates}


def run_tile(call: Call, form: ExpertForm, product: str, tile: ExpertTile) -> torch.Tensor:
    """The whole op with this tile for one of its products."""
    return launch(*call, form=form, **{f"{product}_tile": tile})


def tile_us(calls: Sequence[Call], form: ExpertForm, product: str, tile: ExpertTile) -> float:
    """Infinite where the tile does not fit."""
    try:
        return graph_time_us(
            [lambda call=call: run_tile(call, form, product, tile) for call in calls], replays=5
        )
    except Exception as failure:
        print(f"{tile} fails: {str(failure)[:100]}")
        return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=MOE_SHAPES, default=QWEN3_30B_A3B.name)
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sizes = expert_sizes(MOE_SHAPES[arguments.shape].config)
    table(sizes)
    if arguments.sweep:
        print(json.dumps({gpu_names(CUDA)[-1]: sweep(sizes)}))


if __name__ == "__main__":
    main()
