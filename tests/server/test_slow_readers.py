"""Who takes an answer slowly gets all of it; who takes next to nothing is left."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import server_live
from server_fakes import FakeEngine, fake_config
from server_live import LiveServer, until
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.server.connections.connection import Patience
from octavo.server.connections.taken import num_taken

SIZE = 8 * 2**20
SEND_TIMEOUT_S = 0.5


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(bytes(SIZE))(scope, receive, send)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    patience = Patience(header_timeout_s=20, send_timeout_s=SEND_TIMEOUT_S, max_connections=1000)
    monkeypatch.setattr(server_live, "PATIENCE", patience)
    server = LiveServer(FakeEngine(fake_config()), answer)
    yield server
    server.stop()


def asked(server: LiveServer) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def test_a_slow_reader_gets_all_of_it(server: LiveServer) -> None:
    with asked(server) as connection:
        began, taken = time.monotonic(), 0
        while taken < SIZE:
            data = connection.recv(2**16)
            assert data, "cut off"
            taken += len(data)
            time.sleep(0.02)
        assert time.monotonic() - began > 2 * SEND_TIMEOUT_S, "it took longer than one may take nothing"


def test_who_reads_nothing_is_left(server: LiveServer) -> None:
    connections = server._server.server_state.connections
    with asked(server):
        until(lambda: bool(connections))
        until(lambda: not connections)


async def test_taken_of_a_unix_socket_is_told_by_what_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    done = asyncio.Event()

    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(SIZE))
        before = num_taken(writer.transport)  # type: ignore[arg-type]
        await writer.drain()
        assert num_taken(writer.transport) > before  # type: ignore[arg-type]
        done.set()
        writer.close()

    async with await asyncio.start_unix_server(write, path):
        reader, writer = await asyncio.open_unix_connection(path)
        await reader.readexactly(SIZE)
        await done.wait()
        writer.close()
