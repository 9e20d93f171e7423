"""What rounding inputs to 8 bits costs: perplexity, and distance from float32, on a text.

    python benchmarks/cpu/numerics.py --tokens 20480 --out benchmarks/results/cpu-numerics.json

The text is this repository's documentation. As llama-perplexity does it, the text is cut into pieces of 512
tokens and the second half of each is judged. Both sides are this engine on the same GGUF file: weights made
plain and computed with in float32, which equals transformers, and packed weights in native kernels.
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
    result = {"model": path.name, "tokens": len(pieces) * PIECE, **found}
    print(json.dumps(result, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


def documentation() -> str:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(file.read_text() for file in files)


def compare(path: Path, pieces: list[list[int]], threads: int) -> dict[str, float]:
    """Means over all judged tokens; KL in nats, from float32 to packed."""
    exact_loss = packed_loss = divergence = 0.0
    num_same = count = 0
    for piece, exact_SV, packed_SV in zip(
        pieces, log_probabilities(path, pieces, None), log_probabilities(path, pieces, threads), strict=True
    ):
        targets_S1 = torch.tensor(piece[PIECE // 2 + 1 :])[:, None]
        exact_loss -= exact_SV.gather(1, targets_S1).sum().item()
        packed_loss -= packed_SV.gather(1, targets_S1).sum().item()
        divergence += (exact_SV.exp() * (exact_SV - packed_SV)).sum().item()
        num_same += int((exact_SV.argmax(-1) == packed_SV.argmax(-1)).sum())
        count += len(targets_S1)
    return {
        "perplexity_float32": math.exp(exact_loss / count),
        "perplexity_packed": math.exp(packed_loss / count),
        "kl_mean": divergence / count,
        "same_top_token": num_same / count,
    }


def log_probabilities(path: Path, pieces: list[list[int]], threads: int | None) -> Iterator[torch.Tensor]:
    """Of the tokens after the second half's, piece by piece; threads None: in float32."""
    driver = Driver(path, max_model_len=PIECE + 1, native_threads=threads)
    for piece in pieces:
        driver.add(0, piece)
        driver.prefill(0)
        yield driver.recorder.of(0)[PIECE // 2 : -1].float().log_softmax(-1)
        driver.end(0)


if __name__ == "__main__":
    main()
