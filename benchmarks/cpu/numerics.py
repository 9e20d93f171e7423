"""What rounding costs (inputs of products to 8 bits, keys and values): perplexity, and distance from float32.

    python benchmarks/cpu/numerics.py --tokens 20480 --out benchmarks/results/cpu-numerics.json

The text is this repository's documentation. As llama-perplexity does it, the text is cut into pieces of 512
tokens and the second half of each is judged. All sides are this engine on the same GGUF file: weights made
plain and computed with in float32, which equals transformers, and packed weights in native kernels with keys
and values in each of the numbers they may be kept in.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from octavo.messages.kv import KV_DTYPES  # noqa: E402
from octavo.tokens.tokenizer import load_tokenizer  # noqa: E402
from octavo.weights.checkpoint import open_checkpoint  # noqa: E402
from octavo.weights.sources.find import find_model  # noqa: E402
from tests.worker.step_driver import Driver  # noqa: E402

PIECE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=20480)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text", help="write the text there and stop, for llama-perplexity")
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.text:
        Path(options.text).write_text(documentation())
        return
    path = find_model(options.model)
    token_ids = load_tokenizer(open_checkpoint(path).tokenizer_source()).encode(documentation())
    pieces = [token_ids[start : start + PIECE] for start in range(0, options.tokens, PIECE)]
    pieces = [piece for piece in pieces if len(piece) == PIECE]
    found = compare(path, pieces, options.threads)
    result = {"model": path.name, "tokens": len(pieces) * PIECE, "ways": found}
    print(json.dumps(result, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


def documentation() -> str:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(file.read_text() for file in files)


class Judge:
    """Sums over all judged tokens, of one way to compute."""

    def __init__(self) -> None:
        self._loss = self._divergence = 0.0
        self._num_same = self._count = 0

    def add(self, targets_S1: torch.Tensor, exact_SV: torch.Tensor, found_SV: torch.Tensor) -> None:
        """Log probabilities."""
        self._loss -= found_SV.gather(1, targets_S1).sum().item()
        self._divergence += (exact_SV.exp() * (exact_SV - found_SV)).sum().item()
        self._num_same += int((exact_SV.argmax(-1) == found_SV.argmax(-1)).sum())
        self._count += len(targets_S1)

    def means(self) -> dict[str, float]:
        """KL in nats, from float32 to this."""
        return {
            "perplexity": math.exp(self._loss / self._count),
            "kl_mean": self._divergence / self._count,
            "same_top_token": self._num_same / self._count,
        }


def compare(path: Path, pieces: list[list[int]], threads: int) -> dict[str, dict[str, float]]:
    """Means over all judged tokens, by how it was computed."""
    ways = {"float32": log_probabilities(path, pieces, None, "float32")}
    ways |= {f"packed, kv {kept}": log_probabilities(path, pieces, threads, kept) for kept in KV_DTYPES}
    judges = {name: Judge() for name in ways}
    for piece, *found in zip(pieces, *ways.values(), strict=True):
        targets_S1 = torch.tensor(piece[PIECE // 2 + 1 :])[:, None]
        for judge, found_SV in zip(judges.values(), found, strict=True):
            judge.add(targets_S1, found[0], found_SV)
    return {name: judge.means() for name, judge in judges.items()}


def log_probabilities(
    path: Path, pieces: list[list[int]], threads: int | None, kv_dtype: str
) -> Iterator[torch.Tensor]:
    """Of the tokens after the second half's, piece by piece; threads None: in float32."""
    driver = Driver(path, max_model_len=PIECE + 1, native_threads=threads, kv_dtype=kv_dtype)
    for piece in pieces:
        driver.add(0, piece)
        driver.prefill(0)
        yield driver.recorder.of(0)[PIECE // 2 : -1].float().log_softmax(-1)
        driver.end(0)


if __name__ == "__main__":
    main()
