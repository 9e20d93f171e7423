"""Engines as servers: started, asked when they are ready, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CONTEXT = 1024
"""Tokens of one request, prompt and answer, that every server is set up for."""


BLOCK_SIZE = 16
"""Octavo's: tokens of a KV block."""


class Engine(NamedTuple):
    """How to start a server; {port} and {streams} are filled in, {context} is for all streams together.

    {blocks} are Octavo's for the same tokens: every engine has room for what its streams need and no more.
    """

    name: str
    command: tuple[str, ...]
    health: str


class Server(NamedTuple):
    pid: int
    url: str
    ready_s: float


def octavo(model: Path, *, is_bounded: bool = True) -> Engine:
    """Bounded, it has blocks for what the streams need: for models whose layers share one block table."""
    flags = ("--port", "{port}", "--served-model-name", "default", "--max-model-len", str(CONTEXT))
    flags += ("--num-blocks", "{blocks}") if is_bounded else ()
    return Engine("octavo", (sys.executable, "-m", "octavo.cli.main", "serve", str(model), *flags), "/readyz")


def llama(folder: Path, model: Path, kind: str) -> Engine:
    threads = str(os.cpu_count())
    flags = ("-t", threads, "-np", "{streams}", "-c", "{context}", "--port", "{port}", "--host", "127.0.0.1")
    return Engine(f"llama-server {kind}", (str(folder / "llama-server"), "-m", str(model), *flags), "/health")


@contextmanager
def serving(engine: Engine, streams: int, context: int = 320) -> Iterator[Server]:
    """A server for so many streams of `context` tokens each."""
    port = _free_port()
    blocks = streams * -(-context // BLOCK_SIZE) + 1  # one is never handed out
    values = {"port": port, "streams": streams, "context": streams * context, "blocks": blocks}
    command = [part.format(**values) for part in engine.command]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, f"http://127.0.0.1:{port}{engine.health}")
        yield Server(process.pid, f"http://127.0.0.1:{port}", time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(process: subprocess.Popen[bytes], url: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{url} did not become ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
