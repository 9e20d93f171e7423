"""Overload: ten times as many requests as a real server can answer, by the clock, whatever happens to them.

    python -m tests.chaos.overload --step-ms 20 --out result.json      # a core of hashes, steps of 20 ms
    python -m tests.chaos.overload --model PATH                        # a model

First the most that it answers is measured, then how long an answer takes when there is little to do. Then
come ten times the load, and little again. Goodput has to stay, refusals have to be quick, say when to come
again, and have the status of one; and it has to be itself again soon. Prints a JSON result and PASS or FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.light_client import Connection, Reply, post
from tests.chaos.server import LiveServer
from tests.run_result import add_result_options, conclude, percentile, spread
from tests.tiny import save_model

TARGET_S = 2.0
"""The bound on the predicted time to the first token that the server is given."""
SLACK = 1.25
"""An answer that began within so many times the target counts."""
CALM_SHARE = 0.2
OVERLOAD = 10
REFUSED_S = 0.020
KEPT_SHARE = 0.9
RECOVERY_S = 5.0
NUM_SEQS = 16
PROMPT_WORDS, ANSWER_TOKENS = 12, 20
WORDS = ("sea", "ship", "storm", "harbour", "lamp", "stone", "bird", "letter", "winter", "road")
FLAGS = ("--no-log-requests", "--max-num-seqs", str(NUM_SEQS), "--max-predicted-ttft", str(TARGET_S))


@dataclass
class Visit:
    """One request. Times are of the monotonic clock."""

    due_at: float
    """When it should be sent."""
    sent_at: float = 0.0
    reply: Reply | None = None

    @property
    def is_refused(self) -> bool:
        return self.reply is not None and self.reply.status in (429, 503)

    @property
    def is_good(self) -> bool:
        reply = self.reply
        is_complete = reply is not None and reply.status == 200 and reply.is_whole
        return is_complete and b"[DONE]" in reply.data and self.ttft_s <= SLACK * TARGET_S

    @property
    def ttft_s(self) -> float:
        assert self.reply is not None and self.reply.first_at is not None
        return self.reply.first_at - self.sent_at

    @property
    def ended_at(self) -> float:
        assert self.reply is not None and self.reply.ended_at is not None
        return self.reply.ended_at


@dataclass
class Crowd:
    """All clients. Each has a connection; one that is free is used before another is opened."""

    port: int
    rng: random.Random
    visits: list[Visit] = field(default_factory=list)
    free: list[Connection] = field(default_factory=list)

    async def offer(self, rate: float, seconds: float) -> list[Visit]:
        """Requests at random times, so many a second, however those before them fare."""
        began = len(self.visits)
        due_at = time.monotonic()
        end = due_at + seconds
        tasks = []
        while (due_at := due_at + self.rng.expovariate(rate)) < end:
            if (pause := due_at - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            self.visits.append(Visit(due_at))
            tasks.append(asyncio.create_task(self._visit(self.visits[-1])))
        self.tasks = getattr(self, "tasks", []) + tasks
        return self.visits[began:]

    async def all_ended(self) -> None:
        await asyncio.gather(*self.tasks)
        self.tasks = []

    async def saturate(self, num_clients: int, seconds: float) -> list[Visit]:
        """So many clients, each of which asks as soon as it has its answer."""
        began, end = len(self.visits), time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                visit = Visit(time.monotonic())
                self.visits.append(visit)
                await self._visit(visit)
                if visit.is_refused:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(client() for _ in range(num_clients)))
        return self.visits[began:]

    async def _visit(self, visit: Visit) -> None:
        connection = None
        while self.free and connection is None:
            found = self.free.pop()
            connection = found if found.is_open else None
        connection = connection or await Connection.open(self.port)
        prompt = " ".join(self.rng.choice(WORDS) for _ in range(PROMPT_WORDS))
        request = post(
            "/v1/completions",
            {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "ignore_eos": True, "stream": True},
        )
        visit.sent_at = time.monotonic()
        visit.reply = await connection.ask(request)
        self.free.append(connection)


def goodput(visits: list[Visit], begin: float, end: float) -> float:
    """Good answers that ended in this time, per second."""
    return sum(visit.is_good and begin <= visit.ended_at < end for visit in visits) / (end - begin)


async def measure(server: LiveServer, seed: int, seconds: float) -> dict[str, Any]:
    crowd = Crowd(server.port, random.Random(seed))
    process = psutil.Process(server.process.pid)
    await crowd.saturate(4, 2.0)  # Warm.
    began = time.monotonic()
    await crowd.saturate(2 * NUM_SEQS, seconds)
    closed = goodput(crowd.visits, began, began + seconds)
    began = time.monotonic()
    await crowd.offer(closed, seconds)
    open_ = goodput(crowd.visits, began + 1, began + seconds)
    await crowd.all_ended()
    peak = max(closed, open_)
    calm = await crowd.offer(CALM_SHARE * peak, seconds)
    await crowd.all_ended()
    rss_before = process.memory_info().rss
    burst_at = time.monotonic()
    burst = await crowd.offer(OVERLOAD * peak, 2 * seconds)
    burst_end = time.monotonic()
    rss_after = process.memory_info().rss
    after = await crowd.offer(CALM_SHARE * peak, RECOVERY_S + seconds)
    await crowd.all_ended()
    return judged(
        peak={"closed_loop": round(closed, 2), "open_loop_at_that_rate": round(open_, 2)},
        kept=goodput(crowd.visits, burst_at + TARGET_S, burst_end),
        calm=calm,
        burst=burst,
        late=[visit for visit in after if visit.due_at > burst_end + RECOVERY_S],
        rss_grown=rss_after - rss_before,
    )


def judged(
    *,
    peak: dict[str, float],
    kept: float,
    calm: list[Visit],
    burst: list[Visit],
    late: list[Visit],
    rss_grown: int,
) -> dict[str, Any]:
    refused = [visit for visit in burst if visit.is_refused]
    served = [visit for visit in burst if not visit.is_refused]
    refused_s = [visit.ended_at - visit.sent_at for visit in refused]
    usual, again = [v.ttft_s for v in calm if v.is_good], [v.ttft_s for v in late if v.is_good]
    share = kept / max(peak.values())
    result = {
        "target_s": TARGET_S,
        "peak_goodput": peak,
        "offered_in_burst": len(burst),
        "goodput_in_burst": round(kept, 2),
        "share_of_peak": round(share, 3),
        "statuses_in_burst": dict(Counter(visit.reply.status if visit.reply else 0 for visit in burst)),
        "ttft_of_served_s": spread([visit.ttft_s for visit in served if visit.is_good]),
        "served_too_late": sum(not visit.is_good for visit in served),
        "refusal_s": spread(refused_s),
        "refusals_without_retry_after": sum(
            visit.reply is None or visit.reply.header("retry-after") is None for visit in refused
        ),
        "ttft_calm_s": spread(usual),
        "ttft_from_5_s_after_s": spread(again),
        "refused_from_5_s_after": sum(visit.is_refused for visit in late),
        "client_lag_s": spread([visit.sent_at - visit.due_at for visit in burst]),
        "server_rss_grown_bytes": rss_grown,
    }
    checks = {
        "goodput_is_kept": share >= KEPT_SHARE,
        "refusals_are_quick": percentile(refused_s, 0.99) <= REFUSED_S,
        "refusals_say_when": bool(refused) and not result["refusals_without_retry_after"],
        "is_itself_again": bool(again)
        and not result["refused_from_5_s_after"]
        and percentile(again, 0.95) <= 1.5 * percentile(usual, 0.95) + 0.02,
    }
    return {**result, **checks, "passed": all(checks.values())}


async def run(server: LiveServer, seed: int, seconds: float) -> dict[str, Any]:
    try:
        await server.start()
        result = await measure(server, seed, seconds)
        result["exit_status"] = await server.stop()
        return result
    finally:
        server.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="instead of hashes; 'tiny' is a random one")
    parser.add_argument("--step-ms", type=float, default=20.0, help="what a step of hashes takes")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase; the burst takes two")
    parser.add_argument("--seed", type=int, default=1)
    add_result_options(parser)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # A connection for each of the many.
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model is None or str(options.model) == "tiny":
            model = save_model(folder / "tiny")
        else:
            model = options.model
        server = (
            LiveServer(
                model, ("--step-ms", str(options.step_ms), *FLAGS[1:]), folder, "tests.chaos.fake_server"
            )
            if options.model is None
            else LiveServer(model, FLAGS, folder)
        )
        result = asyncio.run(run(server, options.seed, options.seconds))
    kind = f"hashes, {options.step_ms} ms a step" if options.model is None else options.model.name
    return conclude("overload", {"seed": options.seed, "core": kind, **result}, began, options)


if __name__ == "__main__":
    sys.exit(main())
