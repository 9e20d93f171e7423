"""Rolling restarts: one server takes over from another on the same socket, again and again, under load.

    python -m tests.chaos.rolling --restarts 1000 --servers 8 --out result.json

No request may fail: none is refused, none is cut off, every stream has its last event, every answer is the
right one. A connection that was idle when its server went may be found closed; then the request is sent
again, as HTTP clients do, and counted. Prints a JSON result and a line that says PASS or FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.chaos.load import Load
from tests.chaos.shards import Share, run_shares
from tests.run_result import add_result_options, conclude, spread

FLAGS = ("--max-model-len", "256", "--num-blocks", "200", "--max-num-seqs", "4", "--no-log-requests")
START_S = 180.0
EXIT_S = 40.0
LISTEN_FD = 3
"""Where a server looks for a socket that is handed over."""


@dataclass
class Part:
    """What happened to one row of servers."""

    restarts: int = 0
    start_s: list[float] = field(default_factory=list)
    """From the command to ready."""
    leave_s: list[float] = field(default_factory=list)
    """From SIGTERM to the end of the process."""
    exit_statuses: Counter[int] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


class Successor:
    """A server on a socket that was there before it."""

    def __init__(self, share: Share, listener: socket.socket, number: int, is_real: bool) -> None:
        self.log = share.folder / f"rolling-{share.number}-{number}"
        fd = listener.fileno()
        module = ["octavo.cli.main", "serve"] if is_real else ["tests.chaos.fake_server", "serve"]
        command = [sys.executable, "-m", *module, str(share.model), *(FLAGS if is_real else ())]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LISTEN_FDS": "1"},
                pass_fds=(LISTEN_FD,),
                preexec_fn=lambda: os.set_inheritable(os.dup2(fd, LISTEN_FD), True),
            )

    async def until_ready(self) -> None:
        """Until it says so itself: on the socket the one before it may answer."""
        deadline = time.monotonic() + START_S
        while b"Ready in" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not ready:\n{self.log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)

    async def leave(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(self.process.wait, EXIT_S)
        self.log.unlink()
        return status

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def run_share(share: Share, *, is_real: bool) -> Part:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return asyncio.run(_run_share(share, is_real))


async def _run_share(share: Share, is_real: bool) -> Part:
    part = Part()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        servers = [Successor(share, listener, 0, is_real)]
        try:
            await servers[0].until_ready()
            load = Load(listener.getsockname()[1], random.Random(share.seed))
            await load.learn()
            clients = asyncio.create_task(load.run())
            await _roll(share, listener, servers, part, is_real)
            load.end()
            await clients
            _account(load, part)
            part.exit_statuses[await servers[-1].leave()] += 1
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            part.bad.append(f"seed {share.seed}: {type(error).__name__}: {error}"[:3000])
        finally:
            for server in servers:
                server.end()
    return part


async def _roll(
    share: Share, listener: socket.socket, servers: list[Successor], part: Part, is_real: bool
) -> None:
    """`servers` grows; its last one serves."""
    for number in range(1, share.amount + 1):
        if time.monotonic() > share.ends_at:
            return
        began = time.monotonic()
        before = servers[-1]
        servers.append(Successor(share, listener, number, is_real))
        await servers[-1].until_ready()
        part.start_s.append(time.monotonic() - began)
        began = time.monotonic()
        part.exit_statuses[await before.leave()] += 1
        part.leave_s.append(time.monotonic() - began)
        part.restarts += 1


def _account(load: Load, part: Part) -> None:
    part.repeated = load.repeated
    for visit in load.visits:
        part.outcomes[visit.outcome] += 1
        if visit.outcome not in ("answer", "left"):
            kind = "stream" if visit.is_streamed else "answer"
            part.bad.append(f"{kind} {visit.outcome} {visit.code} after {visit.num_bytes} bytes")


def judged(parts: Sequence[Part]) -> dict[str, Any]:
    """All parts as one result."""
    bad = [line for part in parts for line in part.bad]
    statuses = sum((part.exit_statuses for part in parts), Counter[int]())
    outcomes = sum((part.outcomes for part in parts), Counter[str]())
    starts = [time for part in parts for time in part.start_s]
    leaves = [time for part in parts for time in part.leave_s]
    return {
        "servers": len(parts),
        "restarts": sum(part.restarts for part in parts),
        "requests": outcomes.total(),
        "outcomes": dict(outcomes),
        "repeated_on_kept_connections": dict(sum((part.repeated for part in parts), Counter[str]())),
        "start_s": spread(starts),
        "leave_s": spread(leaves),
        "exit_statuses": {str(status): count for status, count in statuses.items()},
        "failed": len(bad),
        "bad": bad[:50],
        "passed": not bad and set(statuses) == {0} and outcomes["answer"] > 0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--restarts", type=int, default=10, help="of all rows together")
    parser.add_argument("--servers", type=int, default=1, help="rows of servers side by side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=86400.0, help="begin no restart after this")
    parser.add_argument("--hashes", action="store_true", help="a core without a model: it starts sooner")
    add_result_options(parser)
    options = parser.parse_args()
    began = time.monotonic()
    parts = run_shares(
        partial(run_share, is_real=not options.hashes),
        amount=options.restarts,
        servers=options.servers,
        seed=options.seed,
        max_seconds=options.max_seconds,
    )
    kind = "hashes" if options.hashes else "a tiny random model"
    return conclude("rolling", {"seed": options.seed, "core": kind, **judged(parts)}, began, options)


if __name__ == "__main__":
    sys.exit(main())
