"""Clients that leave: 30 % of all requests lose theirs, at every moment a request has.

    python -m tests.chaos.disconnects --requests 100000 --servers 8 --out result.json
    python -m tests.chaos.disconnects --requests 5000 --model PATH

With a core that computes hashes, or a model, 'tiny' for a random one. In the end no block, descriptor, task,
thread, child or request may be left, and memory has to be flat. Prints a JSON result and PASS or FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.faults import warm_up
from tests.chaos.light_client import Connection, Reply, post
from tests.chaos.server import LiveServer
from tests.chaos.shards import Share, run_shares
from tests.run_result import add_result_options, conclude, spread

NUM_CLIENTS = 16
LEAVING_SHARE = 0.3
NUM_PROMPTS = 40
NUM_WARM = 3000
"""Requests before anything is counted: so many it takes until pools are full and the heap is collected."""
NUM_SAMPLES = 50
"""Of memory, over the run."""
MAX_SLOPE_BYTES = 2**20
"""Of memory, for each 10,000 requests ..."""
NOISE_BYTES = 4 * 2**20
"""... or so much between the first half and the second: what allocators do on their own."""
FLAGS = ("--max-model-len", "256", "--num-blocks", "200", "--max-num-seqs", "8", "--no-log-requests")
TINY = Path("tiny")
MOMENTS = ("in the head", "before the body", "in the body", "at once", "at the first byte", "later")


@dataclass
class Part:
    """What happened to one server."""

    done: int = 0
    answers: int = 0
    wrong: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """By moment."""
    bad: Counter[str] = field(default_factory=Counter)
    leaked: dict[str, float] = field(default_factory=dict)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    """Requests done, bytes of the server, bytes of the core."""
    settle_s: float = 0.0
    """From the last request until nothing was held any more."""
    exit_status: int | None = None


class Crowd:
    """All clients of one server."""

    def __init__(self, server: LiveServer, amount: int, rng: random.Random, part: Part) -> None:
        self._server = server
        self._left = amount
        self._rng = rng
        self._part = part
        self._right: dict[int, str] = {}
        self._sample_every = max(1, amount // NUM_SAMPLES)

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(NUM_CLIENTS)))

    async def _client(self) -> None:
        connection: Connection | None = None
        while self._left:
            self._left -= 1
            if connection is None or not connection.is_open:
                connection = await Connection.open(self._server.port)
            number, is_streamed = self._rng.randrange(NUM_PROMPTS), self._rng.random() < 0.7
            request = post("/v1/completions", body(number, is_streamed))
            if self._rng.random() < LEAVING_SHARE:
                await self._leave(connection, request)
            else:
                await self._stay(connection, request, number, is_streamed)
            self._count()
        if connection is not None:
            connection.leave()

    async def _leave(self, connection: Connection, request: bytes) -> None:
        moment = self._rng.choice(MOMENTS)
        self._part.left[moment] += 1
        body_at = request.index(b"\r\n\r\n") + 4
        whole = len(request)
        end = {"in the head": self._rng.randrange(body_at), "before the body": body_at}.get(moment, whole)
        if moment == "in the body":
            end = self._rng.randrange(body_at + 1, whole)
        asking = asyncio.ensure_future(connection.ask(request[:end]))
        if moment == "at the first byte":
            while not asking.done() and (connection.reply is None or connection.reply.first_at is None):
                await asyncio.sleep(0.001)
        else:
            await asyncio.sleep(0 if moment == "at once" else self._rng.uniform(0, 0.05))
        connection.leave()
        await asking

    async def _stay(self, connection: Connection, request: bytes, number: int, is_streamed: bool) -> None:
        reply = await connection.ask(request)
        if not reply.is_whole or reply.status != 200:
            self._part.bad[f"{reply.status} {'whole' if reply.is_whole else 'cut'}"] += 1
            return
        self._part.answers += 1
        text = said(reply, is_streamed)
        self._part.wrong += self._right.setdefault(number, text) != text

    def _count(self) -> None:
        self._part.done += 1
        if self._part.done % self._sample_every == 0:
            core = self._server.core()
            if core is not None:
                own = psutil.Process(self._server.process.pid).memory_info().rss
                self._part.memory.append((self._part.done, own, core.memory_info().rss))


def body(number: int, is_streamed: bool) -> dict[str, Any]:
    return {
        "prompt": f"{number} " * (1 + number % 7),
        "max_tokens": 1 + (7 * number) % 40,
        "ignore_eos": True,
        "temperature": 0,
        "seed": number,
        "stream": is_streamed,
    }


def said(reply: Reply, is_streamed: bool) -> str:
    """The text; ValueError for a stream without its end."""
    if not is_streamed:
        return str(json.loads(reply.body())["choices"][0]["text"])
    *events, last = reply.events() or [""]
    if last != "[DONE]":
        raise ValueError("a stream ended without saying so")
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def run_share(share: Share, *, model: Path | None) -> Part:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return asyncio.run(_run_share(share, model))


async def _run_share(share: Share, model: Path | None) -> Part:
    part = Part()
    server = (
        LiveServer(share.model, (), share.folder, module="tests.chaos.fake_server")
        if model is None
        else LiveServer(share.model if model == TINY else model, FLAGS, share.folder)
    )
    try:
        await server.start()
        await Crowd(server, min(NUM_WARM, share.amount), random.Random(0), Part()).run()
        await warm_up(server)
        await Crowd(server, share.amount, random.Random(share.seed), part).run()
        began = time.monotonic()
        _, part.leaked = await server.settled()
        part.settle_s = time.monotonic() - began
        part.exit_status = await server.stop()
    finally:
        server.end()
    return part


def judged(parts: Sequence[Part]) -> dict[str, Any]:
    """All parts as one result."""
    leaks = [part.leaked for part in parts if part.leaked]
    bad = sum((part.bad for part in parts), Counter[str]())
    wrong = sum(part.wrong for part in parts)
    memory = {
        name: [_growth([(row[0], row[place]) for row in part.memory]) for part in parts]
        for place, name in ((1, "server"), (2, "core"))
    }
    is_flat = all(growth["is_flat"] for growths in memory.values() for growth in growths)
    is_alive = all(part.exit_status == 0 for part in parts)
    left = sum((part.left for part in parts), Counter[str]())
    return {
        "servers": len(parts),
        "requests": sum(part.done for part in parts),
        "answers": sum(part.answers for part in parts),
        "wrong": wrong,
        "left": dict(left),
        "left_share": round(left.total() / max(1, sum(part.done for part in parts)), 3),
        "bad": dict(bad),
        "leaks": leaks,
        "settle_s": spread([part.settle_s for part in parts]),
        "memory": memory,
        "is_right": not bad and not wrong and not leaks and is_alive,
        "is_flat": is_flat,
        "passed": not bad and not wrong and not leaks and is_alive and is_flat,
    }


def _growth(samples: list[tuple[int, int]]) -> dict[str, Any]:
    """By least squares, the first fifth left out."""
    late = samples[len(samples) // 5 :]
    if len(late) < 4:
        return {"is_flat": True, "samples": len(samples)}
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope * 10_000
    half = len(late) // 2
    grown = statistics.mean(row[1] for row in late[half:]) - statistics.mean(row[1] for row in late[:half])
    return {
        "samples_mib": [round(row[1] / 2**20, 1) for row in samples[:: max(1, len(samples) // 12)]],
        "bytes_per_10000_requests": round(slope),
        "grown_bytes_between_halves": round(grown),
        "is_flat": slope < MAX_SLOPE_BYTES or grown < NOISE_BYTES,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="of all servers together")
    parser.add_argument("--servers", type=int, default=1, help="servers that work side by side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, help="instead of hashes; 'tiny' is a random one")
    add_result_options(parser)
    options = parser.parse_args()
    began = time.monotonic()
    parts = run_shares(
        partial(run_share, model=options.model),
        amount=options.requests,
        servers=options.servers,
        seed=options.seed,
        max_seconds=86400.0,
    )
    kind = "hashes" if options.model is None else options.model.name
    return conclude("disconnects", {"seed": options.seed, "core": kind, **judged(parts)}, began, options)


if __name__ == "__main__":
    sys.exit(main())
