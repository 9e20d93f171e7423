"""Rows 2.1: clients that are slow, silent, gone or too many."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import httpx
import psutil

from tests.attacks.arena import HEADER_TIMEOUT_S, SEND_TIMEOUT_S, Arena
from tests.attacks.raw_requests import LONG_REQUEST, head, raw_reply, status_of, whole
from tests.attacks.row import Attack, Row


def slowloris(arena: Arena) -> None:
    """Each sends a byte of its head from time to time; none gets beyond the header time-out."""
    connections = arena.connect_many(arena.many(2000, 60))
    line = head(arena)
    deadline = time.monotonic() + 4 * HEADER_TIMEOUT_S
    open_ones, position = list(connections), 0
    while open_ones and time.monotonic() < deadline:
        for connection in open_ones:
            try:
                connection.send(line[position : position + 1])
            except BlockingIOError:
                continue  # still being connected
            except OSError:
                pass  # seen below
        position += 1
        time.sleep(0.2)
        open_ones = [one for one in open_ones if not _is_closed(one)]
    assert not open_ones, f"{len(open_ones)} of {len(connections)} are still open"


def silence(arena: Arena) -> None:
    """Connected, and nothing more. Meanwhile others are let in."""
    connections = arena.connect_many(arena.many(5000, 80))
    with arena.client(timeout=5) as client:
        assert client.get("/livez").status_code == 200
    wait_until_closed(arena, connections, 4 * HEADER_TIMEOUT_S)


def wait_until_closed(arena: Arena, connections: list[socket.socket], within_s: float) -> None:
    """All of them, by the server."""
    deadline = time.monotonic() + within_s
    open_ones = list(connections)
    while open_ones and time.monotonic() < deadline:
        time.sleep(0.1)
        open_ones = [one for one in open_ones if not _is_closed(one)]
    assert not open_ones, f"{len(open_ones)} of {len(connections)} are still open after {within_s:.0f} s"


def _is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def slow_readers(reads: bool) -> Attack:
    """Streams of much, of which hardly anything is read. They are left after the send time-out."""

    def attack(arena: Arena) -> None:
        most = arena.account()["descriptors"] + 1  # the victim's may have been open or not
        readers = []
        for _ in range(arena.many(200, 12)):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            arena.opened.append(connection)
            connection.connect(("127.0.0.1", arena.port))
            connection.sendall(whole(arena, {**LONG_REQUEST, "max_tokens": 300, "stream": True}))
            readers.append(connection)
        deadline = time.monotonic() + arena.many(240, 30) + 4 * SEND_TIMEOUT_S
        while (now := arena.account()["descriptors"]) > most and time.monotonic() < deadline:
            time.sleep(0.25)
            for connection in readers if reads else ():
                with contextlib.suppress(OSError):
                    connection.recv(1)
        assert now <= most, "readers that do not read are still connected"

    return attack


def resets(where: str) -> Attack:
    """Gone with a reset, at this moment."""

    def attack(arena: Arena) -> None:
        request = whole(arena, LONG_REQUEST)
        cut = {"headers": request.index(b"\r\n\r\n") + 4, "body": len(request) - 5, "request": len(request)}[
            where
        ]
        for _ in range(arena.many(50, 5)):
            connection = arena.connect()
            connection.sendall(request[:cut])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    return attack


def half_close(is_stream: bool) -> Attack:
    """No more to send, all to read: the whole answer comes."""

    def attack(arena: Arena) -> None:
        request = whole(arena, {**LONG_REQUEST, "logprobs": None, "stream": is_stream}, "Connection: close")
        answer = raw_reply(arena, [request], half_close=True)
        assert status_of(answer) == 200, answer[:300]
        assert (b"[DONE]" if is_stream else b'"finish_reason":"length"') in answer, answer[-300:]

    return attack


def goodbye(arena: Arena) -> None:
    """Closed for good while the answer is computed: that is noticed, though it looks the same at first."""
    connection = arena.connect()
    connection.sendall(whole(arena, {**LONG_REQUEST, "n": 8}))
    deadline = time.monotonic() + 10
    while not arena.account()["open_requests"] and time.monotonic() < deadline:
        pass
    connection.close()
    began = time.monotonic()
    while arena.account()["open_requests"]:
        assert time.monotonic() - began < 2, "nobody noticed"


def crowd(arena: Arena) -> None:
    """More connections than descriptors: the loop does not spin, and when they go all is well."""
    process = psutil.Process(arena.server.process.pid)
    connections = arena.connect_many(500)
    time.sleep(0.5)
    before = sum(process.cpu_times()[:2])
    time.sleep(2.0)
    share = (sum(process.cpu_times()[:2]) - before) / 2.0
    assert share < 0.2, f"the server took {share:.0%} of a core"
    for connection in connections:
        connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with arena.client(timeout=3) as client:
                if client.get("/livez").status_code == 200:
                    return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("it did not recover")


ROWS: tuple[Row, ...] = (
    Row(
        id="H17",
        name="one byte of the head at a time",
        expected="each is closed after the header time-out",
        attack=slowloris,
        with_victim=True,
        budget_ms=12_000,
        stall_ms=100,
    ),
    Row(
        id="H18",
        name="connected and silent",
        expected="each is closed after the header time-out",
        attack=silence,
        with_victim=True,
        budget_ms=12_000,
        stall_ms=100,
    ),
    Row(
        id="H19",
        name="streams that nobody reads",
        expected="left after the send time-out",
        attack=slow_readers(False),
        with_victim=True,
        budget_ms=200_000,
        stall_ms=100,
    ),
    Row(
        id="H19",
        name="streams that are read by the byte",
        expected="left after the send time-out",
        attack=slow_readers(True),
        with_victim=True,
        budget_ms=200_000,
        stall_ms=100,
    ),
    *(
        Row(
            id="H21",
            name=f"a reset within or after the {where}",
            expected="nothing is left",
            attack=resets(where),
            with_victim=True,
            budget_ms=5000,
        )
        for where in ("headers", "body", "request")
    ),
    Row(id="H21", name="a client that has said all", expected="the whole answer", attack=half_close(False)),
    Row(
        id="H21",
        name="a client that has said all and reads a stream",
        expected="the whole stream",
        attack=half_close(True),
    ),
    Row(id="H21", name="a client that has gone", expected="its request is aborted at once", attack=goodbye),
)

CROWD_ROWS: tuple[Row, ...] = (
    Row(
        id="H24",
        name="500 connections, few descriptors",
        only_full=True,
        expected="no spinning; well when they have gone",
        attack=crowd,
        budget_ms=20_000,
    ),
)
