"""Rows 2.7: processes, machine, shutdown. Most have a server of their own; the arena serves on beside it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.attacks.after import slowness
from tests.attacks.arena import CANARY, FLAGS, Arena
from tests.attacks.crowd import Answer, Body, ask_all, ask_all_async, body, tokens_of, wait_until
from tests.attacks.own_server import SERVE, OwnServer, launched, lives, started
from tests.attacks.row import Attack, NotThere, Row
from tests.tiny import save_model

MANY_RESTARTS = ("--max-core-restarts", "1000000", "--core-restart-window", "0.001")
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
TYPED = {"engine_failed", "engine_restarted", "internal_error"}
"""What a request may end with for which an error of ours was."""


# P01, P04, P07: kills.


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


def kills_of_the_core(arena: Arena) -> None:
    """Idle, under prefill, under decode, while a form is compiled, while its successor loads."""
    with started(*MANY_RESTARTS, "--max-num-seqs", "4") as server:
        _back(server, _kill(server.core))
        crowds = {"decode": [body(f"decode {n % 3}", 200) for n in range(12)]}
        if arena.is_full:
            crowds["prefill"] = [body([n] * 500, 2) for n in range(40)]
        for name, bodies in crowds.items():
            right = tokens_of(ask_all(server, bodies))
            answers = asyncio.run(_while_asking(server, bodies, lambda: _kill(server.core)))
            assert tokens_of(answers) == right, f"{name}: other tokens than without the kill"
            server.wait_ready()
        if arena.is_full:
            _kill_while_compiling(server)
            _kill_while_loading(server)
        server.canary()
        server.stop()


async def _while_asking(server: OwnServer, bodies: list[Body], act: Callable[[], object]) -> list[Answer]:
    asking = asyncio.create_task(ask_all_async(server, bodies))
    await asyncio.to_thread(wait_until, lambda: _running(server) > 0, "something runs")
    await asyncio.to_thread(act)
    return await asking


def _running(server: OwnServer) -> float:
    page = httpx.get(server.url + "/metrics", timeout=10).text
    line = next(line for line in page.splitlines() if line.startswith("vllm:num_requests_running"))
    return float(line.rpartition(" ")[2])


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


# P06: errors of our own.


def errors_at(*sites: str, may_fail: bool = True, full: int = 240) -> Attack:
    """One call in a hundred of these raises. Every answer is golden or a typed error; the engine stays."""

    def attack(arena: Arena) -> None:
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            armed = Path(folder) / "armed"
            injection = Path(__file__).parent / "injection"
            environment = {
                "ATTACK_FAULTS": ",".join(sites),
                "ATTACK_ARMED": str(armed),
                "PYTHONPATH": f"{injection}{os.pathsep}{os.environ.get('PYTHONPATH', os.getcwd())}",
            }
            with started(*MANY_RESTARTS, environment=environment) as server:
                bodies = [body(f"prompt {n % 8}", 30) for n in range(arena.many(full, 40))]
                right = tokens_of(ask_all(server, bodies[:8])) * (len(bodies) // 8)
                armed.touch()
                answers = ask_all(server, bodies)
                armed.unlink()
                for answer, expected in zip(answers, right, strict=True):
                    _check_golden_or_typed(answer, expected, may_fail)
                assert any(answer.error is None for answer in answers), "all failed"
                server.wait_ready()
                server.canary()
                server.stop()

    return attack


def _check_golden_or_typed(answer: Answer, expected: list[int], may_fail: bool) -> None:
    if answer.error is None:
        assert answer.status == 200 and answer.token_ids == expected, answer
        return
    assert may_fail, f"nobody may notice: {answer.error}"
    assert answer.error["code"] in TYPED and "secret" not in answer.error["message"], answer.error
    assert answer.token_ids == expected[: len(answer.token_ids)], answer


# P08, P09: signals.


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

        assert tokens_of(asyncio.run(_while_asking(server, bodies, end))) == right
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

        answers = asyncio.run(_while_asking(server, bodies, end))
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


# P11, P12, P13, P16: disks, pipes, a poor machine.


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
        id="P06",
        name="errors in the detokeniser",
        expected="only the request concerned fails",
        attack=errors_at("octavo.engine.sample:Sample.add"),
        budget_ms=60_000,
    ),
    Row(
        id="P06",
        name="errors in tokeniser and serialiser",
        expected="only the request concerned fails",
        attack=errors_at(
            "octavo.tokens.tokenizer:Tokenizer.encode", "octavo.server.stream:ChunkFrames.frame"
        ),
        budget_ms=60_000,
        only_full=True,
    ),
    Row(
        id="P06",
        name="errors in sampler and model step",
        expected="the engine stays, only requests concerned fail",
        attack=errors_at(
            "octavo.worker.sampling.sampler:Sampler.sample", "octavo.worker.forward:Forward.run"
        ),
        budget_ms=120_000,
        only_full=True,
    ),
    Row(
        id="P06",
        name="errors in the scheduler",
        expected="another core goes on",
        attack=errors_at("octavo.core.scheduler:Scheduler.schedule", full=64),
        budget_ms=180_000,
        only_full=True,
    ),
    Row(
        id="P06",
        name="errors in metrics and logger",
        expected="nobody notices",
        attack=errors_at(
            "octavo.observe.metrics:Metrics.step_done",
            "octavo.observe.log_lines:TextLines.format",
            may_fail=False,
        ),
        budget_ms=60_000,
        only_full=True,
    ),
    Row(
        id="P07",
        name="crash loop",
        expected="pauses that grow, then exit status 1 with the cause as last words",
        attack=crash_loop,
        budget_ms=60_000,
        only_full=True,
    ),
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

NOT_THERE = (
    NotThere(id="P02", name="kill -9 of a worker", reason="one worker, in the core's process (issue 10)"),
    NotThere(id="P03", name="kill -9 of an API process", reason="there is one, the parent"),
)
