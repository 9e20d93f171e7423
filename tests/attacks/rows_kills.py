"""Rows 2.7: kill -9 of the core, again and again, and of its parent."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import httpx
import psutil

from tests.attacks.after import slowness
from tests.attacks.arena import CANARY, Arena
from tests.attacks.crowd import ask_all, body, tokens_of, wait_until, while_asking
from tests.attacks.own_server import MANY_RESTARTS, OwnServer, lives, started
from tests.attacks.row import NotThere, Row

FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "form",
        "schema": {
            "type": "object",
            "properties": {f"f{n}": {"type": "string", "maxLength": 30} for n in range(200)},
        },
    },
}


def kills_of_the_core(arena: Arena) -> None:
    """Idle, under prefill, under decode, while a form is compiled, while its successor loads."""
    with started(*MANY_RESTARTS, "--max-num-seqs", "4") as server:
        _back(server, _kill(server.core))
        crowds = {"decode": [body(f"decode {n % 3}", 200) for n in range(12)]}
        if arena.is_full:
            crowds["prefill"] = [body([n] * 500, 2) for n in range(40)]
        for name, bodies in crowds.items():
            right = tokens_of(ask_all(server, bodies))
            answers = asyncio.run(while_asking(server, bodies, lambda: _kill(server.core)))
            assert tokens_of(answers) == right, f"{name}: other tokens than without the kill"
            server.wait_ready()
        if arena.is_full:
            _kill_while_compiling(server)
            _kill_while_loading(server)
        server.canary()
        server.stop()


def _kill(process: psutil.Process | None) -> int:
    assert process is not None, "there is a core"
    process.kill()
    return process.pid


def _back(server: OwnServer, old: int) -> None:
    """Not ready within a second, then ready with another core and the right answers, in the same server."""
    wait_until(lambda: server.readiness() != 200 or _is_other(server, old), "it is noticed", 1.0 * slowness())
    began = time.monotonic()
    server.wait_ready(but=old)
    assert time.monotonic() - began < 10.0 * slowness(), "too late"
    server.canary()
    assert server.process.poll() is None


def _is_other(server: OwnServer, old: int) -> bool:
    core = server.core
    return core is not None and core.pid != old


def _kill_while_compiling(server: OwnServer) -> None:
    wish = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 40, "response_format": FORM}
    replies: list[httpx.Response] = []
    thread = threading.Thread(
        target=lambda: replies.append(httpx.post(server.url + "/v1/chat/completions", json=wish, timeout=60))
    )
    thread.start()
    time.sleep(0.05)
    old = _kill(server.core)
    thread.join(60)
    server.wait_ready(but=old)
    assert replies[0].status_code == 200, replies[0].text


def _kill_while_loading(server: OwnServer) -> None:
    old = _kill(server.core)
    for _ in range(2):
        wait_until(lambda old=old: _is_other(server, old), "another one is started", 30.0)  # type: ignore[misc]
        old = _kill(server.core)
    server.wait_ready(but=old)


def kill_of_the_parent(arena: Arena) -> None:
    """All children gone within 2 s, nothing left on the disk; the socket can be bound again."""
    with started() as server:
        httpx.post(server.url + "/v1/chat/completions", timeout=60, json={
            "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "response_format": FORM
        })  # fmt: skip
        children = server.children
        assert len(children) >= 2, "a core and a helper for forms"
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 2.0 * slowness()
        while any(lives(child) for child in children):
            assert time.monotonic() < deadline, f"orphans: {[child for child in children if lives(child)]}"
            time.sleep(0.02)
        left = list(server.temporary.iterdir())
        assert not left, f"left behind: {left}"
        with socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))):
            pass


def crash_loop(_: Arena) -> None:
    """Every core is killed as soon as it is there: pauses, then exit status 1, the cause as last words."""
    with started("--max-core-restarts", "3") as server:
        waiting = threading.Thread(target=_ask_quietly, args=(server,))
        old = _kill(server.core)
        waiting.start()
        while server.process.poll() is None:
            core = _core_or_none(server)
            if core is not None and core.pid != old:
                old = _kill(core)
            assert server.readiness() != 200 or server.process.poll() is None
            time.sleep(0.02)
        waiting.join(60)
        text = server.log
        assert server.process.returncode == 1, text[-800:]
        last = text.strip().splitlines()[-1]
        assert last.startswith("octavo: error: The engine core failed") and "signal 9" in last, last
        assert "started again in 1 s" in text and "started again in 2 s" in text, text[-1500:]


def _core_or_none(server: OwnServer) -> psutil.Process | None:
    try:
        return server.core
    except psutil.Error:
        return None


def _ask_quietly(server: OwnServer) -> None:
    """It must end, however it does."""
    try:
        httpx.post(server.url + "/v1/completions", json=CANARY, timeout=120)
    except httpx.HTTPError:
        return


ROWS: tuple[Row, ...] = (
    Row(
        id="P01",
        name="kill -9 of the core",
        expected="not ready within 1 s, ready within 10 s, every answer golden",
        attack=kills_of_the_core,
        budget_ms=120_000,
    ),
    Row(
        id="P04",
        name="kill -9 of the parent",
        expected="children gone within 2 s, nothing left",
        attack=kill_of_the_parent,
        budget_ms=30_000,
    ),
    Row(
        id="P07",
        name="crash loop",
        expected="pauses that grow, then exit status 1 with the cause as last words",
        attack=crash_loop,
        budget_ms=60_000,
        only_full=True,
    ),
)

NOT_THERE = (
    NotThere(id="P02", name="kill -9 of a worker", reason="one worker, in the core's process (issue 10)"),
    NotThere(id="P03", name="kill -9 of an API process", reason="there is one, the parent"),
)
