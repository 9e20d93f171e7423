"""W6 for one engine: start its server, time it to ready, send the requests, stop it.

python -m benchmarks.gpu.run_server --engine octavo --shape llama8b --out r.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import ResultFile, now, rounded
from benchmarks.gpu.serve_client import run_workload
from benchmarks.gpu.shapes import SHAPES, Shape, write_model, write_tokenizer

MODEL_NAME = "m"
STOP_S = 20.0
OCTAVO_FLAGS = ("--load-format", "dummy", "--dtype", "bfloat16", "--max-model-len", "16384")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    signal.signal(signal.SIGTERM, _leave)  # so that the server is stopped on the way out
    shape = SHAPES[arguments.shape]
    folder = write_model(shape, Path(tempfile.gettempdir()) / "benchmark-shapes-with-tokenizer")
    write_tokenizer(folder, shape.vocab_size)
    port = free_port()
    found: dict[str, Any]
    try:
        command = server_command(arguments.engine, folder, port) + arguments.flag
        found = serve_and_measure(
            command, port, shape, arguments.reps, arguments.log, start_limit_s=arguments.start_limit
        )
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"}
    found["at"] = now()
    ResultFile(arguments.out).put(arguments.engine, shape.name, "W6", found)
    print(f"W6 {shape.name} {arguments.engine} {json.dumps(rounded(found))}", flush=True)
    return int("error" in found)


def server_command(engine: str, folder: Path, port: int) -> list[str]:
    """How the engine's server is started, with its defaults and what all engines are measured with."""
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL_NAME]
    if engine == "octavo":
        return [sys.executable, "-m", "octavo.cli.main", "serve", str(folder), *address, *OCTAVO_FLAGS]
    module = "vllm.entrypoints.openai.api_server"
    return [
        *(sys.executable, "-m", module, "--model", str(folder), *address, *OCTAVO_FLAGS),
        *("--seed", "0", "--disable-uvicorn-access-log"),
    ]


def serve_and_measure(
    command: list[str], port: int, shape: Shape, reps: int, log: Path, *, start_limit_s: float
) -> dict[str, Any]:
    """Run the server for as long as the client needs it. `log` takes what it prints."""
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as out:
        began = time.perf_counter()
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_until_ready(url, server, start_limit_s)
            ready_s = time.perf_counter() - began
            print(f"server ready after {ready_s:.1f} s", flush=True)
            return {"ready_s": ready_s, **run_workload(url, MODEL_NAME, shape.vocab_size, reps)}
        finally:
            stop(server)


def wait_until_ready(url: str, server: subprocess.Popen[bytes], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server was not ready after {limit_s:.0f} s")


def stop(server: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server and what it started; SIGKILL to what is left after a while."""
    for which, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        try:
            os.killpg(server.pid, which)
        except ProcessLookupError:
            return
        try:
            server.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue


def _leave(*_: object) -> None:
    sys.exit(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", required=True, choices=("octavo", "vllm"))
    parser.add_argument("--shape", required=True, choices=list(SHAPES))
    parser.add_argument("--out", required=True, type=Path, help="result file; added to if it exists")
    parser.add_argument("--reps", type=int, default=2, help="timed repetitions")
    parser.add_argument("--log", type=Path, default=Path("server.log"), help="takes the server's output")
    parser.add_argument("--start-limit", type=float, default=200, help="seconds to become ready")
    parser.add_argument(
        "--flag", action="append", default=[], help="a further flag of the server, --flag=--x"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
