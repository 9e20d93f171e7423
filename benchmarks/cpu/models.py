"""Other real models beside llama-server: one and eight streams, turn by turn, a result file for each.

    python -m benchmarks.cpu.models gemma3-270m --folder benchmarks/results/2026-11-29-cpu

Models are what `octavo pull --list` names. llama-server runs the same file, and one requantised to Q4_0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.cpu import peers
from benchmarks.cpu.main import MOST_OTHERS, commit, machine_facts, take_turns, workloads
from benchmarks.cpu.servers import llama, octavo
from benchmarks.gpu.results import rounded
from octavo.weights.sources.find import find_model

NUM_WORKLOADS = 2
"""The first ones: one stream, eight streams."""
SHOWN = ("output_tok_s", "ttft_ms_p50", "tpot_ms_p50", "peak_mib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--folder", type=Path, required=True, help="where the result files go")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    for name in options.models:
        result = measure(name, options.repeats)
        (options.folder / f"{name.removesuffix('-instruct')}.json").write_text(
            json.dumps(rounded(result), indent=1) + "\n"
        )


def measure(name: str, repeats: int) -> dict[str, Any]:
    """All runs, by workload and engine."""
    model, folder = find_model(name), peers.llama_folder()
    engines = [
        octavo(model, is_bounded=False),
        llama(folder, model, "as it is"),
        llama(folder, peers.requantized(model, "Q4_0"), "Q4_0"),
    ]
    runs: dict[str, Any] = {}
    for workload in workloads(True)[:NUM_WORKLOADS]:
        runs[workload.name] = take_turns(engines, workload.load, repeats, MOST_OTHERS)
        for engine, found in runs[workload.name].items():
            print(name, workload.name, engine, {key: round(found[0][key], 2) for key in SHOWN}, flush=True)
    return {"model": name, "commit": commit(), "machine": machine_facts(), "runs": runs}


if __name__ == "__main__":
    main()
