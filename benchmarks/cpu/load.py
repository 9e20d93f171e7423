"""Load for one server: streams in a closed loop, all prompts different unless a beginning is shared."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any, NamedTuple

from benchmarks.cpu.quiet import share_of_others, tree_pss_mib, usage
from benchmarks.cpu.servers import Server
from benchmarks.gpu.measure import quantile
from benchmarks.gpu.sse_client import Connection, Streamed
from benchmarks.gpu.workloads import Request

IDS = range(1000, 40000)
MEMORY_EVERY_S = 0.5


class Load(NamedTuple):
    """How many streams at once, how many requests in all, and of what."""

    streams: int
    requests: int
    input_len: int
    output_len: int
    shared_len: int = 0
    """Tokens that all prompts begin with, besides their own input_len."""


def measure(server: Server, load: Load, seed: int) -> dict[str, float]:
    """Output tokens a second, times to the first and between tokens, peak memory, and what others took."""
    return asyncio.run(_measure(server, load, seed))


async def _measure(server: Server, load: Load, seed: int) -> dict[str, float]:
    source = random.Random(seed)
    shared = source.choices(IDS, k=load.shared_len)
    prompts = [
        Request(shared + source.choices(IDS, k=load.input_len), load.output_len) for _ in range(load.requests)
    ]
    # One request first: prefix caches know the shared part then, and nothing is made for the first time.
    await _complete(server, Request(shared + source.choices(IDS, k=load.input_len), 2))
    pids = [server.pid, os.getpid()]
    peak, watching = [0.0], asyncio.create_task(asyncio.sleep(0))

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], await asyncio.to_thread(tree_pss_mib, server.pid))
            await asyncio.sleep(MEMORY_EVERY_S)

    watching = asyncio.create_task(watch())
    before, began = usage(pids), time.perf_counter()
    answers = await _closed_loop(server, prompts, load.streams)
    wall, after = time.perf_counter() - began, usage(pids)
    watching.cancel()
    gaps = [(answer.last - answer.first) / (answer.tokens - 1) for answer in answers if answer.tokens > 1]
    first = [answer.first - answer.sent for answer in answers]
    found: dict[str, Any] = {
        "output_tok_s": sum(answer.tokens for answer in answers) / wall,
        "ttft_ms_p50": 1e3 * quantile(first, 0.5),
        "ttft_ms_p99": 1e3 * quantile(first, 0.99),
        "tpot_ms_p50": 1e3 * quantile(gaps, 0.5) if gaps else 0.0,
        "peak_mib": peak[0],
        "others": share_of_others(before, after),
    }
    return found


async def _closed_loop(server: Server, prompts: list[Request], streams: int) -> list[Streamed]:
    todo, answers = list(prompts), []

    async def stream() -> None:
        while todo:
            answers.append(await _complete(server, todo.pop()))

    await asyncio.gather(*(stream() for _ in range(streams)))
    return answers


async def _complete(server: Server, request: Request) -> Streamed:
    """On a connection of its own: llama-server closes its connection after every stream."""
    connection = Connection(server.url)
    try:
        return await connection.complete("default", request)
    finally:
        connection.close()
