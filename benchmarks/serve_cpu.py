"""`octavo bench serve` at several concurrencies beside transformers' generate, in one run on one machine.

    python benchmarks/serve_cpu.py --out benchmarks/results/serve-cpu.json

Both compute float32 on the same file. transformers gets static batches as large as the concurrency, all
prompts of one length, no HTTP in between: its best case.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

VOCABULARY_FOR_PROMPTS = range(1000, 40000)


def main() -> None:
    arguments = parse_arguments()
    model = find(arguments.model)
    result: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "model": model.name,
        "workload": {"input_tokens": arguments.input_len, "output_tokens": arguments.output_len},
        "octavo": octavo(arguments, model),
    }
    if not arguments.no_peer:
        result["transformers"] = transformers_generate(arguments, model)
    print_table(result)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, nargs="+", default=[6, 24, 64], help="one per concurrency")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--out")
    return parser.parse_args()


def find(model: str) -> Path:
    from octavo.weights.sources.find import find_model

    return find_model(model)


def octavo(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    port = free_port()
    began = time.monotonic()
    command = [sys.executable, "-m", "octavo.cli.main", "serve", str(model), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(port, server)
        rows: dict[str, Any] = {"start_s": round(time.monotonic() - began, 2)}
        for concurrency, requests in zip(arguments.concurrency, arguments.requests, strict=True):
            rows[str(concurrency)] = bench_serve(arguments, port, concurrency, requests)
        rows["peak_memory_mib"] = peak_memory_mib(server.pid)
        return rows
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def bench_serve(arguments: argparse.Namespace, port: int, concurrency: int, requests: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "result.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "octavo.cli.main", "bench", "serve"),
                *("--base-url", f"http://127.0.0.1:{port}", "--dataset-name", "random"),
                *("--random-input-len", str(arguments.input_len)),
                *("--random-output-len", str(arguments.output_len)),
                *("--num-prompts", str(requests), "--max-concurrency", str(concurrency)),
                *("--num-warmups", str(min(concurrency, 8)), "--ignore-eos", "--save-result", str(saved)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        summary: dict[str, Any] = json.loads(saved.read_text())["summary"]
        return summary


def transformers_generate(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.reference import load_reference

    began = time.monotonic()
    peer = load_reference(model)
    rows: dict[str, Any] = {"load_s": round(time.monotonic() - began, 2)}
    generator = random.Random(0)
    for concurrency in arguments.concurrency:
        ids = torch.tensor(
            [generator.sample(VOCABULARY_FOR_PROMPTS, arguments.input_len) for _ in range(concurrency)]
        )
        with torch.inference_mode():
            peer.generate(ids[:1], max_new_tokens=2, do_sample=False, pad_token_id=0)
            start = time.monotonic()
            out = peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=arguments.output_len,
                max_new_tokens=arguments.output_len,
                do_sample=False,
                pad_token_id=0,
            )
        seconds = time.monotonic() - start
        new_tokens = (out.shape[1] - ids.shape[1]) * concurrency
        rows[str(concurrency)] = {"output_tok_s": round(new_tokens / seconds, 2), "wall_s": round(seconds, 2)}
    return rows


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(port: int, server: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not become ready")


def peak_memory_mib(pid: int) -> float:
    """Sum of peak resident memory over a process and its children (shared pages counted for each)."""
    import psutil

    process = psutil.Process(pid)
    total = 0
    for member in (process, *process.children(recursive=True)):
        for line in Path(f"/proc/{member.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1])
    return round(total / 1024, 1)


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    import torch

    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
    return done.stdout.strip() + ("+changes" if dirty else "")


def print_table(result: dict[str, Any]) -> None:
    peer = result.get("transformers", {})
    print(f"{'streams':>8} {'octavo tok/s':>13} {'transformers':>13} {'ratio':>6}")
    for name, row in result["octavo"].items():
        if not name.isdigit():
            continue
        ours = row["output_throughput"]
        theirs = peer.get(name, {}).get("output_tok_s")
        ratio = f"{ours / theirs:6.2f}" if theirs else ""
        print(f"{name:>8} {ours:13.1f} {theirs or 0:13.1f} {ratio}")


if __name__ == "__main__":
    main()
