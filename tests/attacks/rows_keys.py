"""Rows 2.2: keys, and what is shown to whom."""

from __future__ import annotations

import os
import random
import re
import statistics
import subprocess
import time
from pathlib import Path

import psutil

from octavo.server.tenants.key_book import KeyBook, fixed_tenants
from tests.attacks.arena import Arena, Setting
from tests.attacks.own_server import SERVE
from tests.attacks.row import Row
from tests.attacks.send import COMPLETIONS, PLAIN, Refusal
from tests.attacks.streams import read_stream

ALICE, BOB, OPERATOR, ROOT = (
    "sk-alice-0123456789",
    "sk-bob-0123456789",
    "sk-operator-012345",
    "sk-root-0123456789",
)
KEY_FILE = "".join(
    f'[[keys]]\nname = "{name}"\nkey = "{key}"\nscopes = ["{scope}"]\n'
    for name, key, scope in (
        ("alice", ALICE, "inference"),
        ("bob", BOB, "inference"),
        ("operator", OPERATOR, "admin"),
    )
)
FLAGS = ("--log-level", "DEBUG", "--enable-prompt-embeds", "--trust-request-chat-template")
SETTING = Setting(key_file=KEY_FILE, key=ALICE, admin_key=ROOT, flags=FLAGS)
GOLDEN_ROUTES = Path(__file__).parents[1] / "server" / "routes_and_keys.txt"
MARK = "a secret that nobody else may see"
REFUSED = Refusal(401, "invalid_api_key")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


WRONG_KEYS: dict[str, list[tuple[str, str]]] = {
    "no key": [],
    "a wrong key": [("authorization", "Bearer sk-wrong")],
    "an empty key": [("authorization", "Bearer")],
    "no word": [("authorization", "")],
    "a lower-case scheme": [("authorization", f"bearer {ALICE}")],
    "another scheme": [("authorization", f"Basic {ALICE}")],
    "no scheme": [("authorization", ALICE)],
    "two headers": [("authorization", f"Bearer {ALICE}"), ("authorization", f"Bearer {ALICE}")],
    "a longer key": [("authorization", f"Bearer {ALICE}x")],
    "a shorter key": [("authorization", f"Bearer {ALICE[:-1]}")],
    "two spaces": [("authorization", f"Bearer  {ALICE}")],
    "a comma": [("authorization", f"Bearer {ALICE}, Bearer {ALICE}")],
    "in capitals": [("authorization", f"Bearer {ALICE.upper()}")],
    "an empty x-api-key": [("x-api-key", "")],
    "two x-api-keys": [("x-api-key", ALICE), ("x-api-key", ALICE)],
    "in a cookie": [("cookie", f"key={ALICE}")],
    "the operator's own": [("authorization", f"Bearer {ROOT}")],
}


def wrong_keys(arena: Arena) -> None:
    """All are answered alike, down to the bytes."""
    bodies = set()
    with arena.client(headers={}) as client:
        for name, headers in WRONG_KEYS.items():
            reply = client.get("/v1/models", headers=headers)
            assert reply.status_code == 401, (name, reply.status_code)
            REFUSED.check(reply)
            assert reply.headers["www-authenticate"] == "Bearer", name
            bodies.add(reply.content)
        for path in (
            f"/v1/models?api_key={ALICE}",
            f"/v1/models?key={ALICE}",
            f"/v1/models?authorization=Bearer%20{ALICE}",
        ):
            bodies.add(client.get(path).content)
    assert len(bodies) == 1, bodies


def listed_routes() -> list[tuple[str, str, str, str]]:
    """(listener, method, path, access), from the golden file."""
    rows = (line.split(maxsplit=3) for line in GOLDEN_ROUTES.read_text().splitlines())
    return [(listener, method, path, access.strip()) for listener, method, path, access in rows]


def every_route(arena: Arena) -> None:
    """The live table is the golden one, and all of it is shut but for four."""
    listed = listed_routes()
    for listener, client in (("clients", arena.public), ("admin", arena.admin)):
        live = {
            (method.upper(), path)
            for path, item in client.get("/openapi.json").json()["paths"].items()
            for method in item
        }
        golden = {
            (method, path.replace(":path}", "}")) for name, method, path, _ in listed if name == listener
        }
        assert live <= golden, f"not in the golden file: {live - golden}"
    urls = {"clients": arena.url, "admin": arena.admin_url}
    is_open = set()
    with arena.client(headers={}) as client:
        for listener, method, path, _ in listed:
            for headers in ({}, bearer("sk-wrong"), bearer(BOB) if listener == "admin" else bearer(ROOT)):
                reply = client.request(
                    method, urls[listener] + re.sub(r"{[^}]*}", "x", path), headers=headers
                )
                if reply.status_code not in (401, 403):
                    is_open.add((listener, path))
    assert is_open == {("clients", path) for path in ("/health", "/livez", "/ping", "/readyz")}, is_open


def scopes(arena: Arena) -> None:
    """A key for answers opens no numbers of others, a key for operating gives no answers."""
    with arena.client(headers={}) as client:
        for path, key in (("/metrics", ALICE), ("/v1/usage", "sk-wrong"), ("/load", OPERATOR)):
            reply = client.get(path, headers=bearer(key))
            assert reply.status_code in (401, 403), (path, reply.status_code)
        assert client.post(COMPLETIONS, json=PLAIN, headers=bearer(OPERATOR)).status_code == 403
        assert client.get("/metrics", headers=bearer(OPERATOR)).status_code == 200


def pages(arena: Arena) -> None:
    """What they show: no path of the model, no prompt, no key."""
    folder = str(arena.model.parent)
    with arena.client() as client:
        client.post(COMPLETIONS, json={**PLAIN, "prompt": MARK, "user": MARK})
        texts = [
            client.get(path, headers=bearer(OPERATOR)).text
            for path in ("/metrics", "/docs", "/openapi.json", "/version")
        ]
        texts += [
            client.get(path).text
            for path in ("/v1/models", "/v1/usage", "/load", "/info", "/api/tags", "/api/ps")
        ]
        texts += [client.post("/api/show", json={"model": "tiny"}).text]
    texts += [arena.admin.get("/server_info").text]
    for text in texts[:-1]:
        assert folder not in text, text[max(0, text.find(folder) - 200) :][:400]
    for text in texts:
        for secret in (MARK, ALICE, BOB, OPERATOR, ROOT):
            assert secret not in text, text[max(0, text.find(secret) - 200) :][:400]


def seen_from_outside(arena: Arena) -> None:
    """Nobody who looks at the processes or the log sees a key, whether it came by flag or by environment."""
    server = psutil.Process(arena.server.process.pid)
    for process in (server, *server.children(recursive=True)):
        for view in ("cmdline", "environ"):
            text = Path(f"/proc/{process.pid}/{view}").read_bytes()
            assert ROOT.encode() not in text, f"{view} of {process.name()} shows the key"
    text = arena.log.read_text()
    assert not [key for key in (ALICE, BOB, OPERATOR, ROOT) if key in text], "the log shows a key"


def keys_by_environment(arena: Arena) -> None:
    """The same for a server whose key comes by environment, in its first moments and in its help."""
    key = "sk-environment-0123456789"
    command = [
        *SERVE,
        str(arena.model),
        "--port",
        "0",
        "--api-key",
        "sk-flag-9876543210",
    ]
    with subprocess.Popen(
        command,
        env={**os.environ, "OCTAVO_API_KEY": key, "OCTAVO_ADMIN_API_KEY": key},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            deadline, seen = time.monotonic() + 30, True
            while seen and time.monotonic() < deadline:
                time.sleep(0.1)
                text = (
                    Path(f"/proc/{process.pid}/environ").read_bytes()
                    + Path(f"/proc/{process.pid}/cmdline").read_bytes()
                )
                seen = key.encode() in text or b"sk-flag-9876543210" in text
            assert not seen, "the keys are still to be seen"
        finally:
            process.kill()
        output = process.stdout.read() if process.stdout else b""
    assert key.encode() not in output and b"sk-flag" not in output, output
    shown = subprocess.run(
        [*command[:4], "--help"], env={**os.environ, "OCTAVO_API_KEY": key}, capture_output=True
    ).stdout
    assert key.encode() not in shown


def walls(arena: Arena) -> None:
    """What is alice's, bob can neither read nor end, by whole ids or parts of them."""
    with arena.client() as alice, arena.client(headers=bearer(BOB)) as bob:
        body = {"input": "x", "max_output_tokens": 400, "background": True, "temperature": 0}
        made = alice.post("/v1/responses", json=body).json()
        file = alice.post("/v1/files", files={"file": ("a.jsonl", b"{}\n")}, data={"purpose": "batch"}).json()
        for whole in (made["id"], made["id"][:-1], "resp_", "r", "%20", "*"):
            for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
                reply = bob.request(method, f"/v1/responses/{whole}{path}")
                assert reply.status_code == 404, (method, whole, reply.status_code)
                assert MARK not in reply.text
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            assert bob.request(method, f"/v1/files/{file['id']}{path}").status_code == 404
        assert bob.get("/v1/files").json()["data"] == [] and bob.get("/v1/batches").json()["data"] == []
        assert bob.post(
            "/v1/batches",
            json={"input_file_id": file["id"], "endpoint": COMPLETIONS, "completion_window": "24h"},
        ).status_code in (400, 404)
        assert bob.post(
            "/v1/responses", json={"input": "x", "previous_response_id": made["id"]}
        ).status_code in (400, 404)
        assert alice.get(f"/v1/responses/{made['id']}").status_code == 200
        deadline = time.monotonic() + 60
        while alice.get(f"/v1/responses/{made['id']}").json()["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert alice.get(f"/v1/responses/{made['id']}").json()["status"] in ("completed", "incomplete")
        assert alice.delete(f"/v1/responses/{made['id']}").status_code == 200
        assert alice.delete(f"/v1/files/{file['id']}").status_code == 200


def aborts_by_parts(arena: Arena) -> None:
    """Even an operator ends a request only by its whole id."""
    body = {**PLAIN, "max_tokens": 300, "ignore_eos": True, "stream": True, "return_token_ids": True}
    with arena.client() as client:
        reply = arena.admin.post(
            "/abort_requests", json={"request_ids": ["", "c", "cmpl-", "cmpl", "*", "0", "-0"]}
        )
        assert reply.status_code == 200 and not reply.json()["aborted"], reply.text
        assert len(read_stream(client, body).token_ids) == 300


def key_timing(arena: Arena) -> None:
    """How long a wrong key is looked at does not depend on how much of it is right: Welch's t below 4.5.

    On a machine with moods of its own t is larger now and then, either way; what a key tells, it tells again.
    """
    book = KeyBook(fixed_tenants([ALICE, BOB], "api-key"))
    right = ALICE.encode()
    candidates = {
        count: right[:count] + b"~" * (len(right) - count)
        for count in (0, 1, len(right) // 2, len(right) - 1)
    }
    told = [_told_by_time(book, candidates, seed) for seed in range(3)]
    same = set.intersection(*told)
    assert not same, f"right bytes are told by time: {same}"


def _told_by_time(book: KeyBook, candidates: dict[int, bytes], seed: int) -> set[tuple[int, bool]]:
    """The candidates that differ from the first one, and whether they are quicker."""
    times: dict[int, list[float]] = {count: [] for count in candidates}
    order = [count for count in candidates for _ in range(20_000)]
    random.Random(seed).shuffle(order)
    for count in order:
        # Wherever memory is free: no candidate has a place of its own.
        key = [bytes(bytearray(candidates[count]))]
        began = time.perf_counter_ns()
        book.find(key)
        took = time.perf_counter_ns() - began
        times[count].append(took)
    cropped = {count: sorted(values)[: int(len(values) * 0.95)] for count, values in times.items()}
    differences = {count: welch(cropped[0], cropped[count]) for count in list(candidates)[1:]}
    return {(count, t > 0) for count, t in differences.items() if abs(t) >= 4.5}


def welch(first: list[float], second: list[float]) -> float:
    spread = statistics.variance(first) / len(first) + statistics.variance(second) / len(second)
    return float((statistics.fmean(first) - statistics.fmean(second)) / spread**0.5)


def row(id: str, name: str, attack: object, expected: str, **more: object) -> Row:
    return Row(id=id, name=name, expected=expected, attack=attack, **more)  # type: ignore[arg-type]


ROWS: tuple[Row, ...] = (
    row("U01", "keys that are none", wrong_keys, "401 with WWW-Authenticate, the same body for all"),
    row(
        "U02",
        "keys that are nearly right",
        key_timing,
        "as quickly refused as others: Welch's t below 4.5",
        only_full=True,
        budget_ms=60_000,
    ),
    row(
        "U03",
        "every route without a key",
        every_route,
        "401 (403 for a client's key) but for health; the golden file is the live table",
        stall_ms=150,  # the page that lists them is made when it is first asked for
        budget_ms=5000,
    ),
    row("U03", "keys of another scope", scopes, "403"),
    row("U05", "pages that tell of the server", pages, "no path, no prompt, no key"),
    row("U06", "what others see of the processes and the log", seen_from_outside, "no key"),
    row(
        "U06",
        "keys by environment and by flag",
        keys_by_environment,
        "no key in process list, environment, output, help",
        budget_ms=10_000,
    ),
    row("U07", "another tenant's things", walls, "404", with_victim=True, budget_ms=10_000),
    row("U07", "aborts by parts of ids", aborts_by_parts, "nobody is meant"),
)
