"""Chaos: real servers under load, whose processes are killed and stopped at random moments.

    python -m tests.chaos.chaos --kills 200 --servers 8 --seed 1 --out result.json

Every answer has to be the right one, token for token, or to end with an error that says it may be sent
again; nothing may be left behind. Prints a JSON result and a line that says PASS or FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import FAULTS, NUM_KILLS, Trouble, draw_faults, warm_up
from tests.chaos.load import MAY_BE_SENT_AGAIN, Load, Visit
from tests.chaos.server import LiveServer
from tests.chaos.shards import Share, run_shares
from tests.run_result import add_result_options, conclude, percentile, spread

READY_S = 10.0
"""From a kill of the core to the next one being ready: 99 % of the times."""
END_S = 1.0
"""From a kill to the end of those that it ends: all."""
FLAGS = (
    *("--max-model-len", "256", "--num-blocks", "200", "--max-num-seqs", "4", "--no-log-requests"),
    # Faults come thick here: they are neither counted up nor waited out.
    *("--max-core-restarts", "1000000", "--core-restart-window", "0.001", "--core-stall-timeout", "2"),
)


@dataclass
class Part:
    """What happened to one server."""

    ready_s: dict[str, list[float]] = field(default_factory=dict)
    """By kind of fault."""
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    """Of typed ends."""
    bad: list[str] = field(default_factory=list)
    """What must not be, in words."""
    waiting: int = 0
    """Streams that had nothing yet when a fault came."""
    waiting_completed: int = 0
    running: int = 0
    """Those that had begun."""
    running_completed: int = 0
    end_s: list[float] = field(default_factory=list)
    """From the last kill to each end that it brought."""
    restarts_counted: int = 0
    repeated: int = 0
    leaked: dict[str, float] = field(default_factory=dict)
    rss_bytes: list[int] = field(default_factory=list)
    """Before and after."""
    exit_status: int | None = None


def run_share(share: Share) -> Part:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return asyncio.run(_run_share(share))


async def _run_share(share: Share) -> Part:
    rng, part = random.Random(share.seed), Part()
    server = LiveServer(share.model, FLAGS, share.folder)
    try:
        await server.start()
        await _torment(server, draw_faults(share.amount, rng), rng, part, share.ends_at)
        part.exit_status = await server.stop()
    except (Trouble, AssertionError, OSError) as error:
        part.bad.append(f"seed {share.seed}: {type(error).__name__}: {error}"[:3000])
    finally:
        server.end()
    return part


async def _torment(
    server: LiveServer, faults: Sequence[str], rng: random.Random, part: Part, ends_at: float
) -> None:
    load = Load(server.port, rng)
    await load.learn()
    await warm_up(server)
    clients = asyncio.create_task(load.run())
    for name in faults:
        if time.monotonic() > ends_at:
            break
        await asyncio.sleep(rng.uniform(0.05, 1.5))
        if name == "kill_server":
            # Its counters begin anew.
            part.restarts_counted += int(await server.metric("vllm:core_restarts_total"))
        part.ready_s.setdefault(name, []).append(await FAULTS[name](server, load, rng))
    load.end()
    await clients
    part.restarts_counted += int(await server.metric("vllm:core_restarts_total"))
    if part.restarts_counted != server.cores_lost:
        part.bad.append(f"{server.cores_lost} cores were lost, {part.restarts_counted} were counted")
    after, part.leaked = await server.settled()
    assert server.baseline is not None
    part.rss_bytes = [server.baseline.rss_bytes, after.rss_bytes]
    _account(load, part)


def _account(load: Load, part: Part) -> None:
    part.repeated = load.repeated.total()
    for visit in load.visits:
        part.outcomes[visit.outcome] += 1
        if visit.outcome in ("typed", "cut", "refused"):
            part.codes[visit.code] += 1
        fate = _fate(visit)
        if fate is not None:
            part.bad.append(fate)
        if visit.outcome == "left" or visit.lost_server:
            continue
        is_done = visit.outcome == "answer"
        part.waiting += bool(visit.waited_at)
        part.waiting_completed += bool(visit.waited_at) and is_done
        part.running += bool(visit.met_at)
        part.running_completed += bool(visit.met_at) and is_done
        if visit.code == "engine_restarted" and visit.last_fault != "SIGSTOP":  # Found out by a timeout.
            part.end_s.append(visit.ended_at - max([*visit.waited_at, *visit.met_at]))


def _fate(visit: Visit) -> str | None:
    """What is wrong with how it ended, if something is."""
    struck = [*visit.waited_at, *visit.met_at]
    match visit.outcome:
        case "answer" | "left" | "refused":  # Refused: by a port on which nobody listens for the moment.
            return None
        case "typed" if visit.code in MAY_BE_SENT_AGAIN:
            return None
        case "cut" if visit.lost_server and visit.ended_at - max(struck) <= END_S:
            return None  # With the server that had it.
    return f"{visit.outcome} {visit.code}, met by {len(struck)} faults"


def judged(parts: Sequence[Part]) -> dict[str, Any]:
    """All parts as one result."""
    outcomes = sum((part.outcomes for part in parts), Counter[str]())
    faults = Counter(dict.fromkeys(FAULTS, 0))
    ready: dict[str, list[float]] = {name: [] for name in FAULTS}
    for part in parts:
        for name, times in part.ready_s.items():
            faults[name] += len(times)
            ready[name] += times
    kills = [*ready["kill"], *ready["kill_twice"]]
    ends = [time for part in parts for time in part.end_s]
    bad = [line for part in parts for line in part.bad]
    leaks = [part.leaked for part in parts if part.leaked]
    result = {
        "servers": len(parts),
        "faults": dict(faults),
        "kills": sum(NUM_KILLS[name] * faults[name] for name in NUM_KILLS),
        "ready_after_kill_s": spread(kills),
        "ready_after_stop_s": spread(ready["stop"]),
        "ready_after_server_kill_s": spread(ready["kill_server"]),
        "outcomes": dict(outcomes),
        "codes": dict(sum((part.codes for part in parts), Counter[str]())),
        "streams_waiting_at_faults": sum(part.waiting for part in parts),
        "of_these_completed": sum(part.waiting_completed for part in parts),
        "requests_running_at_faults": sum(part.running for part in parts),
        "of_those_completed": sum(part.running_completed for part in parts),
        "kill_to_typed_end_s": spread(ends),
        "repeated_on_kept_connections": sum(part.repeated for part in parts),
        "leaks": leaks,
        "rss_bytes": [part.rss_bytes for part in parts],
        "exit_statuses": [part.exit_status for part in parts],
        "bad": bad[:50],
        "num_bad": len(bad),
    }
    # Where the server itself was killed its port is closed for a while: only then may clients be refused.
    is_kept = bool(faults["kill_server"]) or not outcomes["refused"]
    is_alive = all(part.exit_status == 0 for part in parts)
    result["is_right"] = not bad and not leaks and is_alive and is_kept and outcomes["answer"] > 0
    result["is_quick"] = percentile(kills, 0.99) <= READY_S and percentile(ends, 1.0) <= END_S
    result["passed"] = result["is_right"] and result["is_quick"]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=32, help="SIGKILLs of cores, all servers together")
    parser.add_argument("--servers", type=int, default=1, help="servers that work side by side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=86400.0, help="begin no fault after this")
    add_result_options(parser)
    options = parser.parse_args()
    began = time.monotonic()
    parts = run_shares(
        run_share,
        amount=options.kills,
        servers=options.servers,
        seed=options.seed,
        max_seconds=options.max_seconds,
    )
    return conclude("chaos", {"seed": options.seed, **judged(parts)}, began, options)


if __name__ == "__main__":
    sys.exit(main())
