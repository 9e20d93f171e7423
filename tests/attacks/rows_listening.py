"""Rows 2.1: where a server listens: ports and sockets that it cannot have, and pages that point to it."""

from __future__ import annotations

import subprocess
import time

import httpx

from tests.attacks.after import slowness
from tests.attacks.arena import Arena
from tests.attacks.own_server import SERVE
from tests.attacks.row import Attack, Row


def refuses_to_start(*flags: str, says: str, taken: bool = False) -> Attack:
    """`octavo serve` ends at once, before the model is loaded, with one clear message and nothing left."""

    def attack(arena: Arena) -> None:
        port = str(arena.port) if taken else "0"
        filled = [flag.replace("MODEL", str(arena.model)) for flag in flags]
        command = [
            *SERVE,
            str(arena.model),
            "--port",
            port,
            *filled,
        ]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, timeout=60, text=True)
        seconds = time.monotonic() - began
        assert done.returncode not in (0, None), done
        text = done.stdout + done.stderr
        assert says in text and "Traceback" not in text and "oad" not in done.stdout, text
        assert len(text.strip().splitlines()) <= 3, text
        assert seconds < 2.0 * slowness(), f"{seconds:.1f} s"

    return attack


def rebinding(arena: Arena) -> None:
    """What a browser sends for a web page whose host name points to this machine."""
    with httpx.Client(base_url=arena.admin_url) as client:
        for headers in (
            {"host": "evil.example"},
            {"host": "evil.example:9000", "user-agent": "curl/8"},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"host": "127.0.0.1.evil.example"},
            {"host": "2130706433"},
        ):
            for path in ("/pause", "/sleep", "/abort_requests", "/log_level"):
                reply = client.post(path, headers=headers, json={})
                assert reply.status_code == 403 and reply.json()["error"]["code"] == "forbidden", reply.text
        assert client.get("/is_paused").json() == {"is_paused": False}


ROWS: tuple[Row, ...] = (
    Row(
        id="H23",
        name="a port in use",
        expected="it says so and ends in 2 s",
        attack=refuses_to_start(says="Cannot listen on", taken=True),
        budget_ms=4000,
    ),
    Row(
        id="H23",
        name="an address of somebody else",
        only_full=True,
        expected="it says so and ends in 2 s",
        attack=refuses_to_start("--host", "192.0.2.1", says="Cannot listen on"),
        budget_ms=4000,
    ),
    Row(
        id="H23",
        name="a socket path that is a file",
        only_full=True,
        expected="it says so and ends in 2 s",
        attack=refuses_to_start("--uds", "MODEL/config.json", says="Cannot listen on the socket"),
        budget_ms=4000,
    ),
    Row(
        id="H23",
        name="a socket path that is too long",
        only_full=True,
        expected="it says so and ends in 2 s",
        attack=refuses_to_start("--uds", "/tmp/" + "x" * 200, says="longer than 107 bytes"),
        budget_ms=4000,
    ),
    Row(id="H26", name="a web page asks the administrative listener", expected="403", attack=rebinding),
)
