"""Soak: mixed traffic against a real server for as long as one likes; whether it holds on to anything.

    python -m tests.soak.soak --minutes 30 --clients 8 --out soak.json

Traffic comes in rounds, with a pause after each in which everything that was open is closed again and the
server is looked at: memory of server and core, descriptors, threads, tasks, children, blocks. Some rounds end
with a sleep and a wake-up. Every answer is checked. Prints a JSON result and a line that says PASS or FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.light_client import Connection, Reply, fetch, post
from tests.chaos.server import Holdings, LiveServer
from tests.soak.traffic import KINDS, Ask, ask, is_well_formed
from tests.tiny import save_model

LEAVING_SHARE = 0.1
SLEEPING_SHARE = 0.2
ASK_S = 60.0
WARM_SHARE = 0.3
"""Of the rounds: caches and pools fill up meanwhile."""
MAX_GROWTH = 0.05
MAX_GROWTH_BYTES = 24 << 20
"""Memory may grow by either from the middle of the time after warming up to its last third."""
MAX_NOTES = 20
NUM_CHILDREN = 5
"""The core, and two helpers each for grammars and templates."""
FLAGS = (
    *("--max-model-len", "512", "--num-blocks", "200", "--max-num-seqs", "8", "--served-model-name", "tiny"),
    *("--trust-request-chat-template", "--tool-call-parser", "hermes", "--no-log-requests"),
)


@dataclass
class Result:
    """What happened."""

    seed: int
    seconds: float = 0.0
    rounds: int = 0
    requests: int = 0
    left: int = 0
    """By clients, in the midst of an answer."""
    sleeps: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Answers with another status or form than they should have."""
    leaked: dict[str, float] = field(default_factory=dict)
    """At the end, beyond what the server held at its beginning."""
    restarts: float = 0.0
    prefix_hits: float = 0.0
    server_mb: list[float] = field(default_factory=list)
    core_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    growth: dict[str, float] = field(default_factory=dict)
    """MB, of server and core."""
    exit_status: int | None = None
    passed: bool = False

    def judge(self) -> None:
        self.growth = {"server": growth(self.server_mb), "core": growth(self.core_mb)}
        flat = all(
            self.growth[name] <= max(MAX_GROWTH * values[-1], MAX_GROWTH_BYTES / 2**20)
            for name, values in (("server", self.server_mb), ("core", self.core_mb))
        )
        clean = not (self.wrong or self.leaked or self.restarts) and self.exit_status == 0
        self.passed = flat and clean and self.requests > 0 and self.prefix_hits > 0


def growth(values: Sequence[float]) -> float:
    """From the first third of what came after warming up to the last; medians: one odd sample is nothing."""
    warm = list(values[int(len(values) * WARM_SHARE) :])
    third = max(1, len(warm) // 3)
    return round(statistics.median(warm[-third:]) - statistics.median(warm[:third]), 2)


class Soak:
    def __init__(self, server: LiveServer, admin_port: int, seed: int, num_clients: int) -> None:
        self.result = Result(seed)
        self._server = server
        self._admin_port = admin_port
        self._rng = random.Random(seed)
        self._num_clients = num_clients

    async def run(self, seconds: float, round_s: float) -> None:
        began = time.monotonic()
        await self._start_helpers()
        self._server.baseline = await self._server.holdings()
        while time.monotonic() - began < seconds:
            await self._round(min(round_s, seconds))
            self.result.rounds += 1
        self.result.seconds = round(time.monotonic() - began, 1)
        self.result.restarts = await self._server.metric("vllm:core_restarts")
        self.result.prefix_hits = await self._server.metric("vllm:prefix_cache_hits")

    async def _start_helpers(self) -> None:
        """Processes that compile grammars and run templates begin with the first, and stay."""
        for name in ("form", "template"):
            wish = KINDS[name][1](self._rng)
            await fetch(self._server.port, post(wish.path, wish.body), ASK_S)
        deadline = time.monotonic() + ASK_S
        while (await self._server.holdings()).children < NUM_CHILDREN and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    async def _round(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._client(end) for _ in range(self._num_clients)))
        if self._rng.random() < SLEEPING_SHARE:
            await self._sleep_and_wake()
        holdings, leaked = await self._server.settled()
        self.result.leaked = leaked
        self._note(holdings)

    def _note(self, holdings: Holdings) -> None:
        core = self._server.core()
        self.result.server_mb.append(round(holdings.rss_bytes / 2**20, 1))
        self.result.core_mb.append(round(core.memory_info().rss / 2**20, 1) if core else float("inf"))
        self.result.descriptors.append(holdings.descriptors)
        self.result.tasks.append(holdings.tasks)

    async def _client(self, end: float) -> None:
        rng = random.Random(self._rng.random())
        while time.monotonic() < end:
            name, wish = ask(rng)
            self.result.kinds[name] = self.result.kinds.get(name, 0) + 1
            self.result.requests += 1
            if rng.random() < LEAVING_SHARE:
                await self._ask_and_leave(wish, rng.uniform(0, 0.2))
                continue
            reply = await fetch(self._server.port, post(wish.path, wish.body), ASK_S)
            problem = problem_of(wish, reply)
            if problem is not None and len(self.result.wrong) < MAX_NOTES:
                self.result.wrong.append(f"{name}: {problem}")

    async def _ask_and_leave(self, wish: Ask, after_s: float) -> None:
        self.result.left += 1
        connection = await Connection.open(self._server.port)
        asking = asyncio.create_task(connection.ask(post(wish.path, wish.body)))
        await asyncio.sleep(after_s)
        connection.leave()
        await asking

    async def _sleep_and_wake(self) -> None:
        self.result.sleeps += 1
        level = self._rng.choice((1, 2))
        for path in (f"/sleep?level={level}", "/wake_up"):
            reply = await fetch(self._admin_port, post(path, {}, headers={"host": "127.0.0.1"}), ASK_S)
            if reply.status != 200:
                self.result.wrong.append(f"{path}: {reply.status} {reply.body()[:200]!r}")


def problem_of(wish: Ask, reply: Reply) -> str | None:
    """What is wrong with an answer, None if nothing is."""
    if reply.status not in wish.statuses or not reply.is_whole:
        return f"{wish.path} {reply.status} {bytes(reply.data[-300:])!r}"
    kind = reply.header("content-type") or ""
    is_streamed = reply.status == 200 and not kind.startswith("application/json")
    try:
        fine = is_well_formed(wish.path, reply.body(), is_streamed)
    except (ValueError, LookupError) as error:
        return f"{wish.path} {error}"
    return None if fine else f"{wish.path} ends with {reply.body()[-200:]!r}"


async def soak(seconds: float, *, clients: int, seed: int, round_s: float, folder: Path) -> Result:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        admin_port: int = probe.getsockname()[1]
    model = save_model(folder / "tiny", max_position_embeddings=512)
    server = LiveServer(model, (*FLAGS, "--admin-port", str(admin_port)), folder)
    try:
        await server.start()
        work = Soak(server, admin_port, seed, clients)
        await work.run(seconds, round_s)
        work.result.exit_status = await server.stop()
    finally:
        server.end()
    work.result.judge()
    return work.result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--round-seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    wish = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        done: Result = asyncio.run(
            soak(
                wish.minutes * 60,
                clients=wish.clients,
                seed=wish.seed,
                round_s=wish.round_seconds,
                folder=Path(folder),
            )
        )
    found: dict[str, Any] = asdict(done)
    if wish.out is not None:
        wish.out.write_text(json.dumps(found, indent=1))
    sys.stdout.write(f"{json.dumps(found)}\n{'PASS' if done.passed else 'FAIL'} soak\n")
    return 0 if done.passed else 1


if __name__ == "__main__":
    sys.exit(main())
