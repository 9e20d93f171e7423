"""CPU time of the host path, part by part, under a device that answers at once (or after --step-ms).

    python benchmarks/host_path.py                       # all parts
    python benchmarks/host_path.py --parts server --step-ms 2.3 --profile

core: EngineCore alone. offline: what LLM.generate does with each step. server: the real server and core
processes under 64 streams. Figures are CPU microseconds, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from null_engine import MAX_LEN, VOCAB_SIZE, NullExecutor, make_config, make_core, make_tokenizer
from stream_client import Answer, LoadPlan, drive, mixed_requests

from octavo.engine.heap import quiet_heap
from octavo.engine.output_processor import OutputProcessor
from octavo.engine.prepare import RequestPreparer, repeatable_keys
from octavo.messages.params import RequestOutputKind, SamplingParams

HERE = Path(__file__).parent
NUM_PROMPT = 64
WARM_STEPS = 20
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--running", type=int, nargs="+", default=[1, 64, 256, 1000])
    parser.add_argument("--steps", type=int, default=300, help="decode steps to time")
    parser.add_argument("--requests", type=int, default=256, help="requests to the server")
    parser.add_argument("--streams", type=int, default=64, help="requests in flight at the server")
    parser.add_argument("--step-ms", type=float, default=2.3, help="what a step takes on the server's device")
    parser.add_argument("--depth", type=int, nargs="+", default=[1, 2], help="steps in flight")
    parser.add_argument("--profile", action="store_true", help="print where the server's time goes")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {}
    for part in arguments.parts:
        results[part] = list(PARTS[part](arguments))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"benchmark": "host_path", "results": results}, indent=1) + "\n")


def core_part(arguments: argparse.Namespace) -> Iterator[Row]:
    """schedule, submit, collect and update of decode steps."""
    for depth in arguments.depth:
        for running in arguments.running:
            steps = arguments.steps if running < 256 else arguments.steps // 2
            yield shown("core", _offline(running, depth, steps, detokenize=None))


def offline_part(arguments: argparse.Namespace) -> Iterator[Row]:
    """The same and what makes text and outputs of it."""
    for detokenize in (False, True):
        for running in arguments.running:
            steps = arguments.steps if running < 256 else arguments.steps // 2
            yield shown("offline", _offline(running, max(arguments.depth), steps, detokenize=detokenize))


def _offline(running: int, depth: int, steps: int, *, detokenize: bool | None) -> Row:
    """Time `steps` decode steps of `running` requests; detokenize None leaves outputs out."""
    executor = NullExecutor()
    core, ready = make_core(make_config(running, max(8192, running * NUM_PROMPT)), executor, depth)
    tokenizer = make_tokenizer()
    processor = OutputProcessor(tokenizer)
    preparer = RequestPreparer(
        tokenizer=tokenizer,
        eos_token_ids=[VOCAB_SIZE - 1],
        vocab_size=VOCAB_SIZE,
        max_model_len=MAX_LEN,
        max_request_tokens=ready.max_request_tokens,
        max_logprobs=0,
        random_keys=repeatable_keys(0),
        is_same_process=True,
    )
    params = SamplingParams(
        temperature=0.0,
        max_tokens=steps + WARM_STEPS + 4,
        ignore_eos=True,
        detokenize=bool(detokenize),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    for number in range(running):
        prepared = preparer.prepare([1000 + number] * (NUM_PROMPT + number % 16), params)
        if detokenize is not None:
            processor.open(prepared)
        core.add(prepared.samples[0])

    def step() -> None:
        deltas = core.step()
        if detokenize is not None:
            for state in processor.process(deltas)[0]:
                if state.has_output:
                    state.take_output()

    gc.collect()
    wall_us = []
    with quiet_heap():
        for _ in range(WARM_STEPS):
            step()
        began = time.process_time()
        for _ in range(steps):
            start = time.perf_counter()
            step()
            wall_us.append((time.perf_counter() - start) * 1e6)
        cpu_us = (time.process_time() - began) / steps * 1e6
    return {
        "running": running,
        "depth": depth,
        "text": "-" if detokenize is None else detokenize,
        "cpu_us_per_step": round(cpu_us, 1),
        "cpu_us_per_token": round(cpu_us / running, 2),
        "wall_us_p50": round(statistics.median(wall_us), 1),
        "wall_us_p99": round(statistics.quantiles(wall_us, n=100)[98], 1),
    }


def server_part(arguments: argparse.Namespace) -> Iterator[Row]:
    """A server process and its core process under streams; the client counts what arrives."""
    port = _free_port()
    command = [
        sys.executable,
        str(HERE / "null_engine.py"),
        "server",
        str(port),
        "--step-ms",
        str(arguments.step_ms),
    ]
    command += ["--depth", str(max(arguments.depth)), *(["--profile"] if arguments.profile else [])]
    server = subprocess.Popen(command)
    try:
        _wait_until_ready(port, server)
        processes = {"server": psutil.Process(server.pid)}
        processes["core"] = processes["server"].children()[0]
        for repetition in range(2):
            requests = mixed_requests(arguments.requests, VOCAB_SIZE, seed=repetition)
            before = {name: _cpu_s(process) for name, process in processes.items()}
            answers, seconds = drive(
                LoadPlan(port, "null", requests, arguments.streams, min(2, arguments.streams))
            )
            used = {name: _cpu_s(process) - before[name] for name, process in processes.items()}
            yield shown("server", _server_row(answers, seconds, used, arguments))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _server_row(
    answers: list[Answer], seconds: float, used: dict[str, float], arguments: argparse.Namespace
) -> Row:
    tokens = sum(answer.num_tokens for answer in answers)
    return {
        "streams": arguments.streams,
        "step_ms": arguments.step_ms,
        "tokens": tokens,
        "tok_s": round(tokens / seconds),
        "server_us_per_token": round(used["server"] / tokens * 1e6, 1),
        "core_us_per_token": round(used["core"] / tokens * 1e6, 1),
        "tokens_per_chunk": round(tokens / sum(answer.num_chunks for answer in answers), 2),
        "ttft_ms_p50": round(statistics.median(answer.ttft_s for answer in answers) * 1e3, 1),
        "tpot_ms_p50": round(statistics.median(answer.tpot_s for answer in answers) * 1e3, 2),
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b"200" in connection.recv(1000).split(b"\r\n")[0]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def shown(part: str, row: Row) -> Row:
    print(f"{part:8}" + "  ".join(f"{name}={value}" for name, value in row.items()), flush=True)
    return row


PARTS = {"core": core_part, "offline": offline_part, "server": server_part}

if __name__ == "__main__":
    main()
