"""W6 from outside: an OpenAI-compatible server under 64 streamed requests, from several client processes.

    python -m benchmarks.gpu.serve_client --url http://127.0.0.1:8000 --shape llama8b --model m

TTFT: from sending to the first piece. TPOT: from the first to the last piece, over tokens - 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.synchronize
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu.measure import quantile
from benchmarks.gpu.results import rounded
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.sse_client import Connection, Streamed
from benchmarks.gpu.workloads import WARM_UP_REP, Request, requests

CONCURRENCY = 64
PROCESSES = 4
WARM_UP_REQUESTS = 128
TIMEOUT_S = 400.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--shape", required=True, choices=list(SHAPES))
    parser.add_argument("--model", required=True, help="the name it is served under")
    parser.add_argument("--reps", type=int, default=2)
    arguments = parser.parse_args()
    vocab_size = SHAPES[arguments.shape].vocab_size
    print(json.dumps(rounded(run_workload(arguments.url, arguments.model, vocab_size, arguments.reps))))


def run_workload(url: str, model: str, vocab_size: int, reps: int) -> dict[str, Any]:
    """Warm up, then `reps` repetitions; the medians over them count."""
    drive(url, model, requests("W6", vocab_size, WARM_UP_REP)[:WARM_UP_REQUESTS])
    runs = [drive(url, model, requests("W6", vocab_size, rep)) for rep in range(reps)]
    medians = {
        name: statistics.median(run[name] for run in runs)
        for name in ("output_tok_s", "ttft_ms_p50", "ttft_ms_p99", "tpot_ms_p50", "tpot_ms_p99")
    }
    return {**medians, "runs": runs}


def drive(
    url: str,
    model: str,
    batch: Sequence[Request],
    *,
    concurrency: int = CONCURRENCY,
    processes: int = PROCESSES,
) -> dict[str, Any]:
    """Send all requests, `concurrency` at a time, and say how it went."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    everybody = context.Barrier(processes)
    clients = [
        context.Process(
            target=_client,
            args=(url, model, batch[index::processes], concurrency // processes, everybody, answers),
            daemon=True,
        )
        for index in range(processes)
    ]
    for client in clients:
        client.start()
    try:
        streamed: list[Streamed] = []
        for _ in clients:
            answer = answers.get(timeout=TIMEOUT_S)
            if isinstance(answer, str):
                raise RuntimeError(f"a client failed: {answer}")
            streamed += answer
    finally:
        for client in clients:
            client.terminate()
            client.join()
    return summarise(streamed, concurrency)


def summarise(streamed: Sequence[Streamed], concurrency: int) -> dict[str, Any]:
    """Rates over the whole run, latencies in milliseconds."""
    wall = max(one.last for one in streamed) - min(one.sent for one in streamed)
    tokens = sum(one.tokens for one in streamed)
    ttft_ms = [(one.first - one.sent) * 1e3 for one in streamed]
    tpot_ms = [(one.last - one.first) / max(1, one.tokens - 1) * 1e3 for one in streamed]
    return {
        "requests": len(streamed),
        "concurrency": concurrency,
        "wall_s": wall,
        "output_tok_s": tokens / wall,
        "tokens_per_chunk": tokens / sum(one.chunks for one in streamed),
        "ttft_ms_p50": statistics.median(ttft_ms),
        "ttft_ms_p99": quantile(ttft_ms, 0.99),
        "tpot_ms_p50": statistics.median(tpot_ms),
        "tpot_ms_p99": quantile(tpot_ms, 0.99),
    }


def _client(
    url: str,
    model: str,
    batch: Sequence[Request],
    width: int,
    everybody: multiprocessing.synchronize.Barrier,
    answers: Any,
) -> None:
    """One process: waits for the others, works its share, sends back what it saw or what went wrong."""
    try:
        everybody.wait(60)
        answers.put(asyncio.run(_lanes(url, model, iter(batch), width)))
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")


async def _lanes(url: str, model: str, left: Iterator[Request], width: int) -> list[Streamed]:
    """`width` requests in flight, each lane taking the next one that is left."""

    async def lane() -> list[Streamed]:
        connection = Connection(url)
        try:
            return [await connection.complete(model, request) for request in left]
        finally:
            connection.close()

    async with asyncio.timeout(TIMEOUT_S):
        done = await asyncio.gather(*(lane() for _ in range(width)))
    return [one for lane_done in done for one in lane_done]


if __name__ == "__main__":
    main()
