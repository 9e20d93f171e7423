"""Rows 2.7: signals to the server and to its core."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx

from tests.attacks.after import slowness
from tests.attacks.arena import CANARY, Arena
from tests.attacks.crowd import ask_all, body, tokens_of, wait_until, while_asking
from tests.attacks.own_server import started
from tests.attacks.row import Row


def drain(arena: Arena) -> None:
    """SIGTERM: not ready at once, new ones refused, whoever is there gets all; exit status 0."""
    count = arena.many(64, 8)
    with started("--max-num-seqs", str(count), "--shutdown-timeout", "120") as server:
        bodies = [body(f"drained {n % 4}", 150) for n in range(2 * count)]
        right = tokens_of(ask_all(server, bodies[:4])) * (len(bodies) // 4)

        def end() -> None:
            server.signal(signal.SIGTERM)
            wait_until(lambda: server.readiness() == 503, "it is not ready any more", 2.0 * slowness())
            reply = httpx.post(server.url + "/v1/completions", json=CANARY, timeout=10)
            assert reply.status_code == 503 and reply.json()["error"]["code"] == "shutting_down", reply.text
            assert int(reply.headers["retry-after"]) >= 1

        assert tokens_of(asyncio.run(while_asking(server, bodies, end))) == right
        assert server.exit_status() == 0, server.log[-800:]


def two_signals(arena: Arena) -> None:
    """A second one ends every stream with a last event, and the server within 2 s."""
    with started("--max-num-seqs", "8", "--shutdown-timeout", "120") as server:
        bodies = [body(f"cut {n}", 450) for n in range(arena.many(128, 24))]
        ended: list[float] = []

        def end() -> None:
            server.signal(signal.SIGTERM)
            wait_until(lambda: server.readiness() == 503, "it is not ready any more", 2.0 * slowness())
            ended.append(time.monotonic())
            server.signal(signal.SIGINT)

        answers = asyncio.run(while_asking(server, bodies, end))
        assert server.exit_status() == 0, server.log[-800:]
        took = time.monotonic() - ended[0]
        assert took < 2.0 * slowness() + 2.0, f"{took:.1f} s"
        for answer in answers:
            assert answer.error is None or answer.error["code"] == "shutting_down", answer
        assert any(answer.error is not None for answer in answers)


def other_signals(_: Arena) -> None:
    """To the server and to its core: no effect, but the stacks at SIGQUIT."""
    with started() as server:
        core = server.core
        assert core is not None
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
            server.signal(number)
            os.kill(core.pid, number)
            server.canary()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(core.pid, number)
        server.canary()
        assert server.core == core
        assert "most recent call first" in server.log
        server.stop()


ROWS: tuple[Row, ...] = (
    Row(
        id="P08",
        name="SIGTERM under load",
        expected="not ready at once, new ones refused, all others answered, exit status 0",
        attack=drain,
        budget_ms=120_000,
    ),
    Row(
        id="P08",
        name="two signals under load",
        expected="a last event for each stream, exit status 0 within 2 s",
        attack=two_signals,
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="P09",
        name="SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGQUIT",
        expected="ignored; SIGQUIT writes stacks",
        attack=other_signals,
        budget_ms=30_000,
        only_full=True,
    ),
)
