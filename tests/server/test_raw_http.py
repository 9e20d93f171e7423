"""What httpx cannot send: raw bytes on the port. The server answers 400 or closes, and goes on."""

from __future__ import annotations

import errno
import http.client
import socket
import time

import httpx
import pytest
from server_fakes import FakeEngine
from server_live import LiveServer, until

RAW = {
    "H09 negative length": b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "H09 signed length": b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
    "H09 two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "H11 no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "H11 two hosts": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "H12 long header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
    "H12 long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "H22 http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "H22 tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "H22 garbage": bytes(range(256)) * 10,
}


@pytest.mark.parametrize("name", RAW)
def test_raw_bytes(live: LiveServer, engine: FakeEngine, name: str) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        try:
            connection.sendall(RAW[name])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1000)
        except OSError as error:
            # The server hung up, at whichever of the calls we noticed; a timeout would be a failure.
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
            answer = b""
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 431"))
    assert httpx.get(live.url + "/livez").status_code == 200


def test_h15_websocket_upgrade_gets_no_socket(live: LiveServer) -> None:
    request = (
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(request)
        assert not connection.recv(1000).startswith(b"HTTP/1.1 101")


def test_absolute_target_is_not_the_path(live: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(b"GET http://evil/v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 404")


ORDER = b"POST /api/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n"
"""Refused without a look at its body."""


def test_a_body_that_comes_after_its_answer_does_not_cost_the_connection(live: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(ORDER + b"\r\n")
            assert status_of_reply(connection) == 400
            connection.sendall(b'{"model":"fake')
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of_reply(connection) == 200


def test_a_body_that_may_never_come_costs_the_connection(live: LiveServer) -> None:
    """Who asked whether to send it may not: a request after it could be taken for the body."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(ORDER + b"Expect: 100-continue\r\n\r\n")
        assert status_of_reply(connection) == 400
        assert has_ended(connection)


def test_the_rest_of_a_body_is_bounded(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.server.connections.connection.LINGER_S", 0.5)
    head = ORDER.replace(b"14", b"99999999") + b"\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as late:
        late.sendall(head)
        assert status_of_reply(late) == 413
        assert has_ended(late)
    monkeypatch.setattr("octavo.server.connections.connection.LINGER_S", 60)
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as much:
        much.sendall(head)
        assert status_of_reply(much) == 413
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                much.sendall(bytes(2**16))


def test_all_requests_before_a_half_close_are_answered(live: LiveServer, engine: FakeEngine) -> None:
    engine.delay_s = 0.02
    body = b'{"prompt": "hi", "max_tokens": 3}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(3 * request)
        connection.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert answers.count(b"HTTP/1.1 200") == 3 and engine.num_aborted == 0


@pytest.mark.parametrize("behind", [b"\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_who_leaves_is_noticed_whatever_came_behind_the_request(
    live: LiveServer, engine: FakeEngine, behind: bytes
) -> None:
    engine.stall_at = 1
    body = b'{"prompt": "hi"}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: engine.num_open == 1)
        connection.sendall(behind)
        time.sleep(0.2)
    until(lambda: engine.num_aborted == 1)


def test_a_request_that_comes_with_the_rest_of_a_body_has_its_own_time(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.server.connections.connection.LINGER_S", 0.2)
    body = b'{"prompt": "hi", "model": "fake"}'
    head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(ORDER + b"\r\n")
        assert status_of_reply(connection) == 400
        connection.sendall(b'{"model":"fake' + head + b"Content-Length: %d\r\n\r\n" % len(body))
        time.sleep(0.5)
        connection.sendall(body)
        assert status_of_reply(connection) == 200


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_early_answer_is_read_by_who_wants_the_connection_closed(live: LiveServer, version: bytes) -> None:
    """Proxies ask for it with each request. A close with bytes unread is a reset: it costs the answer."""
    order = ORDER.replace(b"HTTP/1.1", b"HTTP/" + version).replace(b"14", b"300000")
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(order + b"Connection: close\r\n\r\n")
        time.sleep(0.2)  # Until it has been answered.
        for _ in range(3):
            connection.sendall(bytes(100_000))
            time.sleep(0.05)
        assert status_of_reply(connection) == 400
        assert connection.recv(1) == b"", "closed, not reset"


def status_of_reply(connection: socket.socket) -> int:
    """Read one whole response."""
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    reply.read()
    return reply.status


def has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
