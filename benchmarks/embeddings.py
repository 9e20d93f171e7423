"""Texts embedded per second by Octavo and by sentence-transformers: the same model, texts and cores.

    python benchmarks/embeddings.py --other-python VENV/bin/python [--texts 2000] [--rounds 3] [--json FILE]

VENV has sentence-transformers. Both run in processes of their own, in turn, float32, with --threads threads;
sentence-transformers with its own batch size and with others. The embeddings are compared, too. Of several
rounds the fastest counts, and the processor's seconds beside the clock's: on a machine that others use at the
same time, one thread and the processor's seconds say most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH_SIZES = (32, 4, 8, 16, 64, 128)
"""Of sentence-transformers; its own first."""
FEWEST, MOST = 5, 256
"""Words of a text."""


def make_texts(count: int) -> list[str]:
    """Words of this repository's own documentation, in any order: as many tokens a word as English has."""
    pages = sorted(Path(__file__).resolve().parents[1].glob("docs/*.md"))
    words = [word for page in pages for word in page.read_text().split() if word.isalpha()]
    source = random.Random(1)
    return [" ".join(source.choices(words, k=source.randint(FEWEST, MOST))) for _ in range(count)]


Times = dict[str, list[float]]
"""Seconds of each round by the clock ("wall") and of the processor ("cpu")."""


def run_octavo(model: str, texts: list[str]) -> dict[str, Any]:
    from octavo import LLM

    with LLM(model) as llm:

        def embed() -> list[Any]:
            return llm.embed(texts, use_tqdm=False, truncate_prompt_tokens=-1)

        llm.embed(texts[:64], use_tqdm=False, truncate_prompt_tokens=-1)
        times, outputs = _timed(embed)
    return {
        "times": {"default": times},
        "vectors": [output.outputs.embedding for output in outputs[:50]],
        "tokens": sum(len(output.prompt_token_ids) for output in outputs),
    }


def run_sentence_transformers(model: str, texts: list[str], sizes: list[int]) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    encoder.encode(texts[:64])
    found: dict[str, Times] = {}
    vectors: list[Any] = []
    for size in sizes:
        found[str(size)], vectors = _timed(lambda size=size: encoder.encode(texts, batch_size=size))
    return {"times": found, "vectors": [[float(number) for number in row] for row in vectors[:50]]}


def _timed(work: Any) -> tuple[Times, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"wall": [time.perf_counter() - wall], "cpu": [time.process_time() - cpu]}, result


def _child(role: str, options: argparse.Namespace, sizes: list[int]) -> None:
    import torch

    torch.set_num_threads(options.threads)
    texts = json.loads(Path(options.text_file).read_text())
    if role == "octavo":
        report = run_octavo(options.model, texts)
    else:
        report = run_sentence_transformers(options.model, texts, sizes)
    print("REPORT " + json.dumps(report))


def _run(python: str, role: str, options: argparse.Namespace, sizes: list[int]) -> dict[str, Any]:
    command = [python, __file__, "--role", role, "--model", options.model, "--text-file", options.text_file]
    command += ["--threads", str(options.threads), "--sizes", ",".join(map(str, sizes))]
    threads = str(options.threads)
    env = os.environ | {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    if not lines:
        raise SystemExit(f"{role} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(lines[-1].removeprefix("REPORT "))
    return report


def _cosine(first: list[float], second: list[float]) -> float:
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    return dot / (sum(a * a for a in first) * sum(b * b for b in second)) ** 0.5


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds in turn: all batch sizes of the other in the first one, its own and its best in the others."""
    ours: Times = {"wall": [], "cpu": []}
    theirs: dict[str, Times] = {}
    lowest, tokens, own = 1.0, 0, str(BATCH_SIZES[0])
    for number in range(options.rounds):
        mine = _run(sys.executable, "octavo", options, [])
        sizes = list(BATCH_SIZES) if not number else sorted({int(own), int(_best(theirs))})
        other = _run(options.other_python, "other", options, sizes)
        for kind, seconds in mine["times"]["default"].items():
            ours[kind] += seconds
        for size, times in other["times"].items():
            for kind, seconds in times.items():
                theirs.setdefault(size, {"wall": [], "cpu": []})[kind] += seconds
        pairs = zip(mine["vectors"], other["vectors"], strict=True)
        lowest = min(lowest, *(_cosine(first, second) for first, second in pairs))
        tokens = mine["tokens"]
        print(f"round {number + 1}: octavo {mine['times']['default']}; others {other['times']}", flush=True)
    best = _best(theirs)
    return {
        "model": Path(options.model).parent.name,
        "texts": options.texts,
        "tokens": tokens,
        "threads": options.threads,
        "octavo": ours,
        "sentence-transformers by batch size": theirs,
        "best batch size": best,
        "texts per second": {
            "octavo": options.texts / min(ours["wall"]),
            "default batch size": options.texts / min(theirs[own]["wall"]),
            "best batch size": options.texts / min(theirs[best]["wall"]),
        },
        **{
            f"times as fast by {kind} seconds": {
                "default batch size": min(theirs[own][kind]) / min(ours[kind]),
                "best batch size": min(theirs[best][kind]) / min(ours[kind]),
            }
            for kind in ours
        },
        "lowest cosine": lowest,
    }


def _best(theirs: dict[str, Times]) -> str:
    """The batch size that took the processor least: the clock also counts what others do."""
    return min(theirs, key=lambda size: min(theirs[size]["cpu"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--other-python", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=("octavo", "other"))
    parser.add_argument("--sizes", default="")
    parser.add_argument("--text-file", default="")
    options = parser.parse_args()
    if not options.model:
        from octavo.weights.sources.find import find_model

        options.model = str(find_model("all-minilm-l6-v2"))
    if options.role is not None:
        _child(options.role, options, [int(size) for size in options.sizes.split(",") if size])
        return
    with tempfile.TemporaryDirectory() as folder:
        options.text_file = str(Path(folder) / "texts.json")
        Path(options.text_file).write_text(json.dumps(make_texts(options.texts)))
        report = compare(options)
    print(json.dumps(report, indent=2))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
