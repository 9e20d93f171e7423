"""A server process from its first second to its last: ports, loading, draining, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_fakes import fake_config
from server_live import until

from octavo.base.errors import ConfigError
from octavo.config.server import ServerConfig
from octavo.server.gate import Gate
from octavo.server.listen import ACCEPTED_AT_ONCE, listen, with_address
from octavo.server.run import HAND_OVER_S, _Answering

HERE = Path(__file__).parent
Starter = Callable[..., "ServerProcess"]


class ServerProcess:
    """A child that serves; always ended by the fixture."""

    def __init__(self, wishes: dict[str, Any], stdin: int = subprocess.DEVNULL) -> None:
        root = HERE.parent.parent
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "serve_fake.py"), json.dumps(wishes)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{HERE}"},
        )
        self.url = f"http://127.0.0.1:{self.line()}"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait_ready(self) -> None:
        assert self.line() == "READY"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_status(self) -> int:
        return self.process.wait(timeout=60)


@pytest.fixture
def start() -> Iterator[Starter]:
    servers: list[ServerProcess] = []

    def make(*, stdin: int = subprocess.DEVNULL, **wishes: Any) -> ServerProcess:
        servers.append(ServerProcess(wishes, stdin))
        return servers[-1]

    yield make
    for server in servers:
        server.process.kill()
        server.process.communicate()


class Stream:
    """A streamed completion read in a thread."""

    def __init__(
        self, server: ServerProcess, max_tokens: int = 100, path: str = "/v1/completions", **body: Any
    ) -> None:
        self.lines: list[str] = []
        body = {**(body or {"prompt": "x", "max_tokens": max_tokens}), "stream": True}
        self._thread = threading.Thread(target=self._read, args=(server.url + path, body))
        self._thread.start()
        until(lambda: bool(self.lines))

    def _read(self, url: str, body: dict[str, Any]) -> None:
        with httpx.stream("POST", url, json=body, timeout=30) as response:
            for line in response.iter_lines():
                if line:
                    self.lines.append(line)

    def join(self) -> list[str]:
        self._thread.join(timeout=30)
        return self.lines


def is_ready(server: ServerProcess) -> int:
    return server.get("/readyz").status_code


def test_probes_are_answered_while_the_model_loads(start: Starter) -> None:
    server = start(start_s=1.0)
    assert server.get("/livez").json() == {"status": "starting"}
    response = server.get("/readyz")
    assert response.status_code == 503 and response.json()["error"]["code"] == "not_ready"
    assert response.headers["retry-after"]
    server.wait_ready()
    assert is_ready(server) == 200
    server.signal()
    assert server.exit_status() == 0


def test_a_signal_while_loading_stops(start: Starter) -> None:
    server = start(start_s=60)
    assert server.get("/livez").status_code == 200
    server.signal(signal.SIGINT)
    assert server.exit_status() == 0


def test_a_start_that_fails_ends_the_process(start: Starter) -> None:
    server = start(fails=True)
    assert server.exit_status() != 0


def test_drain_lets_running_streams_finish(start: Starter) -> None:
    server = start(engine={"delay_s": 0.02})
    server.wait_ready()
    stream = Stream(server)
    server.signal()
    until(lambda: is_ready(server) == 503)
    refused = httpx.post(server.url + "/v1/completions", json={"prompt": "x"})
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "shutting_down"
    assert server.get("/livez").status_code == 200
    lines = stream.join()
    assert len(lines) == 101 and '"finish_reason":"length"' in lines[-2] and lines[-1] == "data: [DONE]"
    assert server.exit_status() == 0


@pytest.mark.parametrize("num_signals", [1, 2])
def test_streams_that_may_not_finish_get_a_last_event(start: Starter, num_signals: int) -> None:
    # One signal: the time to drain passes. Two: nobody waits for it.
    timeout = 0.3 if num_signals == 1 else 60.0
    server = start(engine={"stall_at": 3}, config={"shutdown_timeout": timeout})
    server.wait_ready()
    stream = Stream(server)
    began = time.monotonic()
    server.signal()
    if num_signals == 2:
        until(lambda: is_ready(server) == 503)
        server.signal()
    lines = stream.join()
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert server.exit_status() == 0
    assert time.monotonic() - began < 30, "far below the time to drain"


def test_a_stored_response_that_may_not_finish_is_kept_as_failed(start: Starter, tmp_path: Path) -> None:
    config = {"response_store": str(tmp_path / "responses"), "shutdown_timeout": 30.0}
    server = start(engine={"stall_at": 3}, config=config)
    server.wait_ready()
    stream = Stream(server, path="/v1/responses", input="x")
    server.signal()
    until(lambda: is_ready(server) == 503)
    server.signal()
    *_, name, last = stream.join()
    assert name == "event: response.failed", "the store is there until the last answer has ended"
    reply = json.loads(last.removeprefix("data: "))["response"]
    assert reply["error"]["message"] == "The server is shutting down."
    assert server.exit_status() == 0
    again = start(config=config)
    again.wait_ready()
    assert again.get(f"/v1/responses/{reply['id']}").json()["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE])
def test_p09_other_signals_change_nothing(start: Starter, number: signal.Signals) -> None:
    server = start(engine={"delay_s": 0.005})
    server.wait_ready()
    stream = Stream(server)
    server.signal(number)
    assert len(stream.join()) == 101
    assert is_ready(server) == 200
    server.signal()
    assert server.exit_status() == 0


def test_p09_a_closed_terminal_drains(start: Starter) -> None:
    ours, theirs = pty.openpty()
    handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup it is ignored, by children, too.
    server = start(engine={"delay_s": 0.005}, stdin=theirs)
    signal.signal(signal.SIGHUP, handler)
    os.close(theirs)
    server.wait_ready()
    stream = Stream(server)
    server.signal(signal.SIGHUP)
    assert len(stream.join()) == 101
    assert server.exit_status() == 0
    os.close(ours)


def test_an_engine_that_failed_for_good_ends_the_server(start: Starter) -> None:
    server = start(engine={"fail_at": 3, "fails_for_good": True})
    server.wait_ready()
    lines = Stream(server).join()
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert lines[-1] == "data: [DONE]"
    assert server.exit_status() == 1
    assert server.process.stderr is not None
    assert "The engine failed for good." in server.process.stderr.read()


class HandedOver(ServerProcess):
    """Started as by systemd: with a listening socket as descriptor 3."""

    def __init__(self, listener: socket.socket, wishes: dict[str, Any]) -> None:
        root = HERE.parent.parent
        self.process = subprocess.Popen(
            ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", sys.executable, str(HERE / "serve_fake.py"),
             json.dumps(wishes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{HERE}", "LISTEN_FDS": "1"},
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(listener.fileno(), 3, inheritable=True) and None,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.line()}"


def test_one_server_after_the_other_on_one_socket_loses_no_request() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/completions"
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                statuses.append(
                    httpx.post(url, json={"prompt": "x", "max_tokens": 5}, timeout=30).status_code
                )
            except httpx.HTTPError:
                statuses.append(0)

    server = HandedOver(listener, {"engine": {"delay_s": 0.01}})
    server.wait_ready()
    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    with httpx.Client(timeout=30) as idle:
        assert idle.post(url, json={"prompt": "x"}).status_code == 200
        # It loads for a while: nobody may get into its hands before it can answer.
        after = HandedOver(listener, {"engine": {"delay_s": 0.01}, "start_s": 0.7})
        after.wait_ready()
        server.signal()
        time.sleep(HAND_OVER_S + 0.5)
        # Its connection was closed, so that this one goes to the other server.
        assert idle.post(url, json={"prompt": "x"}).status_code == 200
    assert server.exit_status() == 0
    until(lambda: len(statuses) > 20)
    is_over.set()
    for client in clients:
        client.join(timeout=30)
    after.signal()
    assert after.exit_status() == 0
    for process in (server.process, after.process):
        process.communicate()
    listener.close()
    assert set(statuses) == {200}


def test_who_connected_last_may_still_ask() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HandedOver(listener, {})
        server.wait_ready()
        with socket.create_connection(listener.getsockname()) as late:
            until(lambda: b"200 OK" in asked(listener, b"GET /livez"))  # It has accepted what came before.
            server.signal()
            time.sleep(HAND_OVER_S + 0.3)
            late.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
            assert late.recv(1000).startswith(b"HTTP/1.1 200")
        assert server.exit_status() == 0
        server.process.communicate()


def asked(listener: socket.socket, line: bytes) -> bytes:
    with socket.create_connection(listener.getsockname()) as connection:
        connection.sendall(line + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        return connection.recv(1000)


def test_a_server_that_goes_says_so_with_its_last_answers(start: Starter) -> None:
    server = start(engine={"delay_s": 0.02})
    server.wait_ready()
    with httpx.Client(timeout=30) as client:
        before = client.post(server.url + "/v1/completions", json={"prompt": "x"})
        body = {"prompt": "x", "max_tokens": 40, "stream": True}
        with client.stream("POST", server.url + "/v1/completions", json=body) as response:
            server.signal()
            until(lambda: is_ready(server) == 503)
            response.read()
        refused = client.get(server.url + "/readyz")
    assert "connection" not in before.headers
    assert refused.headers["connection"] == "close"
    assert server.exit_status() == 0


def test_h23_a_taken_port_is_told_before_anything_else() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="address already in use") as error:
            listen(ServerConfig(port=taken.getsockname()[1]))
    assert error.value.param == "port"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"port": 70000}, "port"),
        ({"host": "198.51.100.7"}, "port"),
        ({"host": "no such host"}, "host"),
        ({"uds": "/tmp/" + "x" * 200}, "uds"),
        ({"uds": "/no/such/folder/socket"}, "uds"),
    ],
)
def test_h23_addresses_that_cannot_be(options: dict[str, Any], param: str) -> None:
    with pytest.raises(ConfigError) as error:
        listen(ServerConfig(**options))
    assert error.value.param == param


def test_the_address_that_is_told_is_the_one_that_was_taken(tmp_path: Path) -> None:
    any_port = fake_config(port=0, host="127.0.0.1")
    with listen(any_port.server) as listener:
        port = listener.getsockname()[1]
        told = with_address(any_port, listener).server
        assert (told.host, told.port, told.uds) == ("127.0.0.1", port, None) and port
        config = fake_config(host="0.0.0.0", port=port)
        assert with_address(config, listener) is config
        handed_over = with_address(fake_config(uds="/elsewhere"), listener).server
        assert (handed_over.host, handed_over.port, handed_over.uds) == ("127.0.0.1", port, None)
    path = str(tmp_path / "s")
    with listen(ServerConfig(uds=path)) as listener:
        assert with_address(fake_config(), listener).server.uds == path


def test_a_crowd_waits_in_the_queue_whatever_is_accepted_in_one_turn(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(ServerConfig(uds=str(tmp_path / "s"))))
        listener.listen(ACCEPTED_AT_ONCE)  # asyncio does, before it accepts
        for _ in range(2 * ACCEPTED_AT_ONCE):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(5.0)
            client.connect(str(tmp_path / "s"))


def test_a_dead_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    config = ServerConfig(uds=str(tmp_path / "s"))
    listen(config).close()
    alive = listen(config)
    with pytest.raises(ConfigError, match="in use"):
        listen(config)
    alive.close()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError):
        listen(ServerConfig(uds=str(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "precious"


async def test_nobody_is_dropped_who_was_accepted_in_the_last_turn() -> None:
    config = fake_config(port=0)
    gate = Gate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = _Answering(gate, config.server, listener)
        answering.start()
        await asyncio.sleep(0.1)
        with socket.create_connection(listener.getsockname()) as late:
            late.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(2):
                await asyncio.sleep(0)  # Accepted, and not made yet.
            answering.stop_listening()
            late.setblocking(False)
            async with asyncio.timeout(20):
                answer = await asyncio.get_running_loop().sock_recv(late, 1000)
            assert answer.startswith(b"HTTP/1.1 200")
        answering.stop()
        await answering.ended()
