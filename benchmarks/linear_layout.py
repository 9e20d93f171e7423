"""The products of one decoder layer: packed as layers/linear.py has them, beside the matrices as stored.

python benchmarks/linear_layout.py --out results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import linear

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP = 576, 9, 3, 64, 1536
NUM_LAYERS = 30
"""As many layers as the default model has, so that weights come from memory and not from a cache."""

STORED = {
    "q": (HEADS * HEAD_DIM, HIDDEN),
    "k": (KV_HEADS * HEAD_DIM, HIDDEN),
    "v": (KV_HEADS * HEAD_DIM, HIDDEN),
    "o": (HIDDEN, HEADS * HEAD_DIM),
    "gate": (MLP, HIDDEN),
    "up": (MLP, HIDDEN),
    "down": (HIDDEN, MLP),
}
PACKED = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    stored = [{name: torch.randn(shape) for name, shape in STORED.items()} for _ in range(NUM_LAYERS)]
    packed = [
        [torch.cat([layer[name] for name in names]).t().contiguous() for names in PACKED] for layer in stored
    ]
    rows = []
    for tokens in arguments.tokens:
        inputs = {width: torch.randn(tokens, width) for width in (HIDDEN, MLP)}

        def as_stored(inputs: dict[int, torch.Tensor] = inputs) -> None:
            for layer in stored:
                for weight in layer.values():
                    linear(inputs[weight.shape[1]], weight)

        def as_packed(inputs: dict[int, torch.Tensor] = inputs) -> None:
            for layer in packed:
                for weight in layer:
                    torch.mm(inputs[weight.shape[0]], weight)

        # In turns, so that a change of the machine's speed meets both.
        times: dict[str, list[float]] = {"stored": [], "packed": []}
        for _ in range(arguments.rounds):
            for name, run in (("stored", as_stored), ("packed", as_packed)):
                began = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - began) / NUM_LAYERS * 1e3)
        row = {"tokens": tokens, **{f"{n}_ms": round(statistics.median(t), 3) for n, t in times.items()}}
        rows.append(row)
        print(row)
    if arguments.out:
        record = {"torch": torch.__version__, "threads": torch.get_num_threads(), "per_layer": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
