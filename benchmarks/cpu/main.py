"""Octavo beside llama.cpp (and OpenVINO) on this machine's cores, in one run.

    python -m benchmarks.cpu.main --out benchmarks/results/cpu.json            about 30 minutes
    python -m benchmarks.cpu.main --short --out benchmarks/results/cpu.json    about 10

Servers and client share the cores. Engines take turns, so that a slow minute of the machine hits all of them;
a run in which others took more than 4 % of the cores does not count and is made again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cpu import peers
from benchmarks.cpu.load import Load, measure
from benchmarks.cpu.quiet import MOST_OTHERS, share_of_others, usage
from benchmarks.cpu.servers import Engine, llama, octavo, serving
from benchmarks.gpu.machine import commit, machine_facts, package_version, software_versions
from benchmarks.gpu.results import rounded

MODEL = "smollm2-135m-instruct"
MOST_TRIES = 4
"""Of a run that others disturb."""
Numbers = dict[str, float]


class Workload(NamedTuple):
    name: str
    metric: str
    key: str
    better: str
    load: Load
    floor: float
    target: float


def workloads(is_short: bool) -> list[Workload]:
    """Floor and target: of the ratio to the best peer."""
    half = 2 if is_short else 1
    streams = {
        1: Load(1, 6 // half, 128, 128),
        8: Load(8, 24 // half, 128, 128),
        32: Load(32, 64 // half, 128, 128),
    }
    return [
        Workload("1 stream", "output tok/s", "output_tok_s", "higher", streams[1], 1.0, 1.5),
        Workload("8 streams", "output tok/s", "output_tok_s", "higher", streams[8], 1.4, 2.0),
        Workload("8 streams", "peak MiB", "peak_mib", "lower", streams[8], 1.5, 1.0),
        Workload("32 streams", "output tok/s", "output_tok_s", "higher", streams[32], 1.2, 1.8),
        Workload("shared prompt", "TTFT p50 ms", "ttft_ms_p50", "lower", Load(32, 32, 16, 8, 512), 0.3, 0.1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--repetitions", type=int, help="default: 3, short 2")
    parser.add_argument("--no-openvino", action="store_true")
    parser.add_argument("--count-disturbed", action="store_true", help="to try the script on a busy machine")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from octavo.weights.sources.find import find_model

    model, folder = find_model(options.model), peers.llama_folder()
    quantized = peers.requantized(model, "Q4_0")
    engines = [octavo(model), llama(folder, model, "as it is"), llama(folder, quantized, "Q4_0")]
    repetitions = options.repetitions or (2 if options.short else 3)
    most = 1.0 if options.count_disturbed else MOST_OTHERS
    runs: dict[str, dict[str, list[Numbers]]] = {}
    results = []
    for work in workloads(options.short):
        name = f"{work.load}"
        if name not in runs:
            runs[name] = take_turns(engines, work.load, repetitions, most)
            show(work.name, runs[name])
        results.append(result(work, runs[name]))
    results += other_results(engines, folder, quantized, repetitions, most)
    if not options.no_openvino:
        results += openvino_results(model, runs, workloads(options.short), most)
    claim = {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "peer": "llama.cpp" if options.no_openvino else "llama.cpp (and OpenVINO)",
        "machine": machine_facts(),
        "versions": software_versions() | {"octavo": package_version("octavo"), "llama.cpp": peers.LLAMA},
        "results": results,
        "runs": runs,
    }
    print_table(results)
    if options.out:
        options.out.write_text(json.dumps(rounded(claim), indent=1) + "\n")


def take_turns(engines: list[Engine], load: Load, repetitions: int, most: float) -> dict[str, list[Numbers]]:
    """Every engine once, then again."""
    found: dict[str, list[Numbers]] = {engine.name: [] for engine in engines}
    for repetition in range(repetitions):
        for engine in engines:

            def run(engine: Engine = engine, repetition: int = repetition) -> Numbers:
                with serving(
                    engine, load.streams, load.shared_len + load.input_len + load.output_len + 64
                ) as server:
                    return measure(server, load, seed=repetition)

            found[engine.name].append(undisturbed(run, most))
    return found


def undisturbed(run: Callable[[], Numbers], most: float) -> Numbers:
    for _ in range(MOST_TRIES):
        found = run()
        if found["others"] <= most:
            return found
        print(f"others took {found['others']:.0%} of the cores: not counted", flush=True)
    raise SystemExit("The machine is not quiet. Stop what else runs (`top` shows it), then run this again.")


def result(work: Workload, by_engine: dict[str, list[Numbers]]) -> dict[str, Any]:
    medians = {name: statistics.median(run[work.key] for run in found) for name, found in by_engine.items()}
    return entry(work.name, work.metric, work.better, medians, work.floor, work.target)


def entry(
    workload: str, metric: str, better: str, by_engine: Numbers, floor: float | None, target: float | None
) -> dict[str, Any]:
    """One line of the claim, beside the best peer."""
    rivals = {name: value for name, value in by_engine.items() if name != "octavo"}
    best = (max if better == "higher" else min)(rivals, key=rivals.__getitem__)
    return {
        "workload": workload,
        "shape": MODEL,
        "metric": metric,
        "better": better,
        "octavo": by_engine["octavo"],
        "peer": rivals[best],
        "peer_name": best,
        "ratio": by_engine["octavo"] / rivals[best],
        "floor": floor,
        "target": target,
    }


def other_results(
    engines: list[Engine], folder: Path, model: Path, repetitions: int, most: float
) -> list[dict[str, Any]]:
    """Prompts (ours over HTTP, llama.cpp's without it), and the time from the command to the first token."""
    prompt: Numbers = {}
    found = take_turns(engines[:1], Load(1, 4, 512, 1), repetitions, most)["octavo"]
    prompt["octavo"] = 512e3 / statistics.median(run["ttft_ms_p50"] for run in found)
    prompt["llama-bench Q4_0"] = undisturbed(lambda: llama_bench(folder, model), most)["tok_s"]
    start: Numbers = {}
    for engine in (engines[0], engines[2]):
        runs = [undisturbed(lambda engine=engine: start_time(engine), most) for _ in range(repetitions)]
        start[engine.name] = statistics.median(run["seconds"] for run in runs)
    return [
        entry("prompt of 512", "input tok/s", "higher", prompt, 1.0, 1.3),
        entry("start", "s to first token", "lower", start, None, None),
    ]


def llama_bench(folder: Path, model: Path) -> Numbers:
    before = usage([os.getpid()])
    threads = str(os.cpu_count())
    command = [
        str(folder / "llama-bench"),
        "-m",
        str(model),
        "-t",
        threads,
        "-p",
        "512",
        "-n",
        "0",
        "-o",
        "json",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    speed = float(re.findall(r'"avg_ts": ([\d.]+)', text)[0])
    return {"tok_s": speed, "others": share_of_others(before, usage([os.getpid()]))}


def start_time(engine: Engine) -> Numbers:
    """Until the server is ready, and one short request behind it."""
    before = usage([os.getpid()])
    with serving(engine, 1) as server:
        first = measure(server, Load(1, 1, 8, 1), seed=0)
        others = share_of_others(before, usage([os.getpid()]))
        return {"seconds": server.ready_s + first["ttft_ms_p50"] / 1e3, "others": others}


def openvino_results(
    model: Path, runs: dict[str, dict[str, list[Numbers]]], works: list[Workload], most: float
) -> list[dict[str, Any]]:
    """In process, without HTTP: its best case."""
    results = []
    for work in works:
        if work.load.streams != 32 or work.load.shared_len:
            continue

        def run(load: Load = work.load) -> Numbers:
            before = usage([os.getpid()])
            command = [
                str(peers.openvino_python()),
                str(Path(__file__).parent / "openvino_engine.py"),
                str(model),
            ]
            sizes = [str(size) for size in (load.requests, load.input_len, load.output_len)]
            text = subprocess.run([*command, *sizes], check=True, capture_output=True, text=True).stdout
            others = share_of_others(before, usage([os.getpid()]))
            return {"output_tok_s": float(text.split()[-1]), "others": others}

        peers.openvino_python()
        ours = statistics.median(found["output_tok_s"] for found in runs[f"{work.load}"]["octavo"])
        speeds = {"octavo": ours, "OpenVINO": undisturbed(run, most)["output_tok_s"]}
        results.append(entry(f"{work.name}, OpenVINO", work.metric, work.better, speeds, 1.2, 1.8))
    return results


def show(name: str, by_engine: dict[str, list[Numbers]]) -> None:
    for engine, found in by_engine.items():
        parts = [f"{key} {statistics.median(run[key] for run in found):.4g}" for key in found[0]]
        print(f"{name}: {engine}: {', '.join(parts)}", flush=True)


def print_table(results: list[dict[str, Any]]) -> None:
    for line in results:
        print(
            f"{line['workload']:24} {line['metric']:18} octavo {line['octavo']:9.4g}  "
            f"{line['peer_name']} {line['peer']:9.4g}  ratio {line['ratio']:.3g}"
            f" (floor {line['floor']}, target {line['target']})"
        )


if __name__ == "__main__":
    main()
