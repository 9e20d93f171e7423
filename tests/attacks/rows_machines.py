"""Rows 2.7: what a machine can lack or have too much of: disks, pipes, descriptors, checks, other servers."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from tests.attacks.after import slowness
from tests.attacks.arena import CANARY, FLAGS, Arena
from tests.attacks.crowd import ask_all, body, tokens_of, wait_until
from tests.attacks.own_server import SERVE, OwnServer, launched, started
from tests.attacks.row import Row
from tests.tiny import save_model


def full_disks(_: Arena) -> None:
    """The log's disk is full; an upload meets a limit; the folder of files is deleted."""
    with Path("/dev/full").open("wb") as full, started(output=full) as server:
        for _ in range(5):
            server.canary()
        server.stop()
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        folder = Path(name) / "files"
        with started("--files-dir", str(folder), before=("prlimit", "--fsize=600000")) as server:
            kept = _upload(server, 1000)
            assert kept.status_code == 200, kept.text
            _check_not_stored(_upload(server, 2_000_000))
            server.canary()
            listed = httpx.get(server.url + "/v1/files", timeout=10).json()["data"]
            assert [one["id"] for one in listed] == [kept.json()["id"]], "a part of a file is there"
            shutil.rmtree(folder)
            _check_not_stored(_upload(server, 1000))
            server.canary()
            assert server.readiness() == 200
            server.stop()
            assert server.log.count("Traceback") <= 2, server.log[-2000:]


def _upload(server: OwnServer, size: int) -> httpx.Response:
    files = {"file": ("lines.jsonl", b"x" * size), "purpose": (None, "user_data")}
    return httpx.post(server.url + "/v1/files", files=files, timeout=30)


def _check_not_stored(reply: httpx.Response) -> None:
    assert reply.status_code >= 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "/tmp" not in error["message"], error


def pipes_that_nobody_reads(arena: Arena) -> None:
    """Standard output and error: a reader that has stopped, one that is gone before the first line."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(read, "rb"), os.fdopen(write, "wb") as pipe, started(output=pipe) as server:
        bodies = [body(f"log line {n}", 2) for n in range(arena.many(400, 80))]
        tokens_of(ask_all(server, bodies))
        began = time.monotonic()
        server.canary()
        assert time.monotonic() - began < 2.0 * slowness()
        server.stop()
    if not arena.is_full:
        return
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe, started(output=pipe) as server:
        server.canary()
        server.stop()


def poor_machines(arena: Arena) -> None:
    """No temporary folder, few descriptors, no such address, optimised Python: it serves, or says why not."""
    with started(environment={"TMPDIR": "/nonexistent/folder"}) as server:
        server.canary()
        server.stop()
    _check_refused(("--host", "no-such-host.invalid"), "host")
    _check_refused(("--host", "198.51.100.7"), "Cannot listen")
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        _check_refused(("--host", "::1"), "host", "Cannot listen")
    _few_descriptors(arena)


def _few_descriptors(arena: Arena) -> None:
    for count in (8, 24, 48) if arena.is_full else (24,):
        with launched(before=("prlimit", f"--nofile={count}")) as server:
            deadline = time.monotonic() + 30 * slowness()
            while server.process.poll() is None and server.readiness() != 200:
                assert time.monotonic() < deadline, f"neither ready nor ended: {server.log[-500:]}"
                time.sleep(0.05)
            if server.process.poll() is None:
                server.canary()
                server.stop()
            else:
                assert server.process.returncode in (1, 2), server.process.returncode
                assert "open files" in server.log or "octavo: error" in server.log, server.log[-800:]


def _check_refused(flags: tuple[str, ...], *words: str) -> None:
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        command = [*SERVE, str(save_model(Path(name) / "tiny")), *FLAGS, *flags]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, f"{done.returncode}: {done.stderr[-500:]}"
        assert "Traceback" not in done.stderr and any(word in done.stderr for word in words), done.stderr
        assert time.monotonic() - began < 2.0 * slowness(), "too late"


def optimised_python(_: Arena) -> None:
    """P13. No check is an assert: keys, values and files are looked at as ever."""
    environment = {"PYTHONOPTIMIZE": "2"}
    with launched("--api-key", "sk-x", environment=environment) as server:
        server.wait_ready()
        route = server.url + "/v1/completions"
        assert httpx.post(route, json=CANARY, timeout=30).status_code == 401
        key = {"authorization": "Bearer sk-x"}
        assert httpx.post(route, json=CANARY, headers=key, timeout=30).status_code == 200
        for wrong in ({"temperature": -1}, {"prompt": [10**9]}, {"max_tokens": 10**9}, {"n": 10**9}):
            reply = httpx.post(route, json=CANARY | wrong, headers=key, timeout=30)
            assert reply.status_code == 400, f"{wrong}: {reply.status_code}"
        server.stop()
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        model = save_model(Path(name) / "tiny")
        os.truncate(model / "model.safetensors", 1000)
        with launched(model=model, environment=environment) as server:
            assert server.exit_status() == 1, server.log
            assert "model.safetensors" in server.log and "Traceback" not in server.log, server.log


def internal_sockets(_: Arena) -> None:
    """P14. While it starts, a socket in a folder of its own; then none that anybody could find. No port but
    the one that was asked for. (What strangers say there: tests/end_to_end/test_core_process.py.)
    """
    with launched() as server:
        wait_until(lambda: any(server.temporary.glob("octavo-*/core")), "the core's socket is there", 30.0)
        (folder,) = server.temporary.glob("octavo-*")
        found = folder.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.getuid(), 0o700), oct(found.st_mode)
        server.wait_ready()
        assert not list(server.temporary.iterdir()), "sockets are still there"
        for process in (psutil.Process(server.process.pid), *server.children):
            for one in process.net_connections("inet"):
                is_listening = one.status == psutil.CONN_LISTEN
                assert not is_listening or one.laddr.ip == "127.0.0.1", f"{process.cmdline()}: {one}"
                assert not is_listening or process.pid == server.process.pid, f"{process.cmdline()}: {one}"
            for one in process.net_connections("unix"):
                assert not str(one.laddr).startswith("@") and not (
                    one.laddr and Path(str(one.laddr)).exists()
                ), one
        server.stop()


def two_servers(arena: Arena) -> None:
    """P16. One folder of files belongs to one of them; a lock that a killed one left is nobody's."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        model, files = save_model(Path(name) / "tiny"), Path(name) / "files"
        flags = ("--files-dir", str(files))
        with started(*flags, model=model) as first:
            assert _upload(first, 100).status_code == 200
            with launched(*flags, model=model) as second:
                assert second.exit_status() == 2, second.log
                assert "Another server uses the folder" in second.log, second.log[-500:]
            with started(model=model) as third:
                third.canary()
                third.stop()
            first.canary()
            first.process.kill()
            first.process.wait()
        with started(*flags, model=model) as again:
            listed = httpx.get(again.url + "/v1/files", timeout=10).json()["data"]
            assert len(listed) == 1, listed
            again.stop()


ROWS: tuple[Row, ...] = (
    Row(
        id="P11",
        name="disks that are full, a folder that is gone",
        expected="typed errors, no partial file, serving goes on",
        attack=full_disks,
        budget_ms=60_000,
        only_full=True,
    ),
    Row(
        id="P12",
        name="output that nobody reads",
        expected="serving goes on",
        attack=pipes_that_nobody_reads,
        budget_ms=60_000,
    ),
    Row(
        id="P13",
        name="no temporary folder, few descriptors, no such address",
        expected="it serves, or ends at once with the reason",
        attack=poor_machines,
        budget_ms=90_000,
        only_full=True,
    ),
    Row(
        id="P13",
        name="python -OO",
        expected="every check is made",
        attack=optimised_python,
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="P14",
        name="sockets of our own",
        expected="private while it starts, gone then; no port beside the one asked for",
        attack=internal_sockets,
        budget_ms=30_000,
        only_full=True,
    ),
    Row(
        id="P16",
        name="two servers, one folder; a lock of a killed one",
        expected="the second is refused, the next one starts",
        attack=two_servers,
        budget_ms=90_000,
        only_full=True,
    ),
)
