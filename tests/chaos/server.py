"""A real server whose processes can be found, hurt, counted and started again on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.light_client import fetch, get

READY_TIMEOUT_S = 180.0
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""asyncio's pool begins a thread for each of the first calls and keeps so many."""


@dataclass
class Holdings:
    """What a server holds on to."""

    descriptors: int
    threads: int
    tasks: int
    children: int
    blocks_in_use: float
    """Share of the KV cache."""
    open_requests: float
    """That run or wait in the core."""
    rss_bytes: int

    def beyond(self, before: Holdings) -> dict[str, float]:
        """What is more than before, memory left aside."""
        names = ("descriptors", "threads", "tasks", "children", "blocks_in_use", "open_requests")
        more = {name: getattr(self, name) - getattr(before, name) for name in names}
        more["threads"] -= POOL_THREADS
        return {name: round(value, 4) for name, value in more.items() if value > 0}


class LiveServer:
    """`octavo serve` as a user runs it, with a way to ask what it holds."""

    def __init__(
        self, model: Path, flags: tuple[str, ...], folder: Path, module: str = "tests.chaos.watched"
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.log = folder / f"log-{self.port}"
        self._holdings = folder / f"holdings-{self.port}.json"
        self._command = [
            *(sys.executable, "-m", module, "serve", str(model)),
            *("--port", str(self.port), *flags),
        ]
        self.process: subprocess.Popen[bytes]
        self.baseline: Holdings | None = None
        """What it held when it was ready and nothing was open."""
        self.cores_lost = 0
        """By what was done to it."""

    async def start(self) -> float:
        """Seconds until it was ready."""
        began = time.monotonic()
        env = {**os.environ, "OCTAVO_HOLDINGS": str(self._holdings)}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self._command, stdout=out, stderr=subprocess.STDOUT, env=env)
        await self.until_ready()
        return time.monotonic() - began

    async def until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not await self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not become ready:\n{self.log.read_text()[-2500:]}")
            await asyncio.sleep(0.03)

    async def is_ready(self) -> bool:
        return (await fetch(self.port, get("/readyz"), 2.0)).status == 200

    def core(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                if any(word.endswith("/core") for word in child.cmdline()):  # The address of its socket.
                    return child
        return None

    async def other_core(self, than: psutil.Process) -> psutil.Process:
        """The next core, from its first moment."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            core = self.core()
            if core is not None and core.pid != than.pid:
                return core
            await asyncio.sleep(0.02)
        raise AssertionError(f"no new core:\n{self.log.read_text()[-2500:]}")

    async def metric(self, name: str) -> float:
        """Sum over labels. NaN when the page cannot be had."""
        reply = await fetch(self.port, get("/metrics"))
        lines = reply.body().decode().splitlines() if reply.status == 200 else []
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]
        return sum(values) if values else float("nan")

    async def holdings(self) -> Holdings:
        self._holdings.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGRTMIN)
        deadline = time.monotonic() + 60
        while not self._holdings.exists():
            assert time.monotonic() < deadline, "the server does not tell what it holds"
            await asyncio.sleep(0.02)
        told = json.loads(self._holdings.read_text())
        process = psutil.Process(self.process.pid)
        return Holdings(
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            tasks=told["tasks"],
            children=len(process.children(recursive=True)),
            blocks_in_use=await self.metric("vllm:kv_cache_usage_perc"),
            open_requests=await self.metric("vllm:num_requests_running")
            + await self.metric("vllm:num_requests_waiting{"),
            rss_bytes=process.memory_info().rss,
        )

    async def settled(self, timeout_s: float = 10.0) -> tuple[Holdings, dict[str, float]]:
        """What it holds once everything that was open has been closed, and what of it is new."""
        assert self.baseline is not None, "it was looked at before"
        deadline = time.monotonic() + timeout_s
        while True:
            now = await self.holdings()
            leaked = now.beyond(self.baseline)
            if not leaked or time.monotonic() > deadline:
                return now, leaked
            await asyncio.sleep(0.3)

    async def stop(self, timeout_s: float = 40.0) -> int:
        """SIGTERM, then the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, timeout_s)

    def end(self) -> None:
        """However it is: it is over."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
