"""Rows 2.1: what is no proper HTTP/1.1: where messages begin and end, hosts and targets, other protocols."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psutil

from tests.attacks.arena import MAX_BODY_BYTES, Arena
from tests.attacks.raw_requests import HUNG_UP, REQUEST, head, raw_reply, sends_raw, status_of, whole
from tests.attacks.row import Attack, Row
from tests.attacks.send import UNSPEAKABLE


def lengths(line: str, body: bytes, *statuses: int) -> Attack:
    """A head with this Content-Length and a body that may not fit it: refused, and the connection closed."""

    def attack(arena: Arena) -> None:
        data = head(arena, "Content-Type: application/json", line) + body
        answer = raw_reply(arena, [data], half_close=True)
        assert status_of(answer) in statuses, answer[:300]

    return attack


def smuggled(arena: Arena) -> None:
    """What lies behind a body is the next request. It is none: the first is answered, the rest refused."""
    answer = raw_reply(arena, [whole(arena, REQUEST) + b"GARBAGE\r\n\r\n"])
    assert status_of(answer) == 200 and b"}HTTP/1.1 400 " in answer and b"http_invalid" in answer, answer


def host(value: str | None, *statuses: int, path: str = "/v1/models", with_key: bool = True) -> Attack:
    """A Host header like this; None sends none."""

    def attack(arena: Arena) -> None:
        lines = [f"GET {path} HTTP/1.1", "Connection: close"]
        if value is not None:
            lines.append(f"Host: {value}")
        if with_key:
            lines.append(f"Authorization: {arena.auth['authorization']}")
        answer = raw_reply(arena, ["\r\n".join(lines).encode() + b"\r\n\r\n"])
        assert status_of(answer) in statuses, answer[:300]

    return attack


TARGETS = (
    *("http://evil/v1/models", "http://x/livez", "//v1/models", "/V1/MODELS", "/v1/models;x", "*"),
    *("/v1/../v1/models", "/v1/%2e%2e/v1/models", "/livez/../v1/models", "/livez%2f..%2fv1/models"),
    *("/livez?/v1/models", "/v1/models?/livez", "/livez#/v1/models", "/%6civez"),
)


def targets(arena: Arena) -> None:
    """With and without the key: without one only /livez answers, whatever the target looks like."""
    for target in TARGETS:
        answers = {}
        for has_key in (True, False):
            lines = [f"GET {target} HTTP/1.1", "Host: x", "Connection: close"]
            lines += [f"Authorization: {arena.auth['authorization']}"] if has_key else []
            answers[has_key] = raw_reply(arena, ["\r\n".join(lines).encode() + b"\r\n\r\n"])
        with_key, without = status_of(answers[True]), status_of(answers[False])
        assert with_key in (200, 400, 404), (target, answers[True][:200])
        is_open = without == 200
        assert without in (400, 401) or (is_open and b'{"status":"ok"}' in answers[False]), (
            target,
            answers[False],
        )
        assert with_key != 200 or is_open or target == "/v1/models?/livez", (target, answers[True][:200])


def endless_head(num_bytes: int, first: bytes, piece: bytes, status: int) -> Attack:
    """Send up to num_bytes of a head: refused long before, and closed."""

    def attack(arena: Arena) -> None:
        before = psutil.Process(arena.server.process.pid).memory_info().rss
        with arena.connect() as connection:
            num_sent = 0
            try:
                connection.sendall(first)
                while num_sent < num_bytes:
                    connection.sendall(piece)
                    num_sent += len(piece)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            except OSError as error:
                if error.errno not in HUNG_UP:
                    raise
                answer = _rest(connection)
        assert status_of(answer) == status or (not answer and num_sent > 2**20), answer[:200]
        grown = psutil.Process(arena.server.process.pid).memory_info().rss - before
        assert grown < 32 * 2**20, f"memory rose by {grown >> 20} MiB"
        assert not UNSPEAKABLE.search(answer.decode("latin-1"))

    return attack


def _rest(connection: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return b""


def _chunks(num_bytes: int) -> Iterator[bytes]:
    for _ in range(num_bytes // 65536):
        yield b"10000\r\n" + b" " * 65536 + b"\r\n"


def endless_body(num_bytes: int) -> Attack:
    """A chunked body without an end: refused at the limit, and no longer read."""

    def attack(arena: Arena) -> None:
        with arena.connect() as connection:
            connection.sendall(head(arena, "Content-Type: application/json", "Transfer-Encoding: chunked"))
            num_sent = 0
            try:
                for chunk in _chunks(num_bytes):
                    connection.sendall(chunk)
                    num_sent += len(chunk)
            except OSError as error:
                if error.errno not in HUNG_UP:
                    raise
            answer = _rest(connection)
        assert not answer or status_of(answer) == 413, answer[:300]
        assert num_sent < MAX_BODY_BYTES + 16 * 2**20, f"{num_sent >> 20} MiB were taken"

    return attack


def bad_chunks_behind_an_answer(arena: Arena) -> None:
    """The answer (401) comes before the body has ended; then the body turns out to be no body at all."""
    with arena.connect() as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        answer = connection.recv(65536)
        assert status_of(answer) == 401, answer
        try:
            connection.sendall(b"this is no chunk\r\n" * 10)
        except OSError as error:
            if error.errno not in HUNG_UP:
                raise
        assert b"HTTP/1.1" not in _rest(connection)


def garbage(seed: int) -> bytes:
    return bytes((seed * 97 + i * i * 31) % 256 for i in range(4096))


def upgrade(arena: Arena) -> None:
    answer = raw_reply(
        arena,
        [head(arena, "Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
              "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", path="/v1/models", method="GET")],
    )  # fmt: skip
    assert status_of(answer) in (200, 400, 426), answer[:200]
    assert b"101" not in answer[:20]


def storm(arena: Arena) -> None:
    """Much nonsense at once does not fill the log."""
    before = arena.log.stat().st_size
    for number in range(arena.many(2000, 100)):
        raw_reply(arena, [garbage(number)], half_close=True)
    grown = arena.log.stat().st_size - before
    assert grown < 20_000, f"the log grew by {grown} bytes"


ROWS: tuple[Row, ...] = (
    Row(
        id="H09",
        name="a body shorter than announced",
        expected="closed without an answer that counts",
        attack=lengths("Content-Length: 100", b"{}", 0, 400),
    ),
    Row(
        id="H09",
        name="a body longer than announced",
        expected="the rest is no request: 400 and closed",
        attack=smuggled,
    ),
    *(
        Row(
            id="H09",
            name=f"Content-Length {value!r}",
            expected="400 and closed",
            attack=lengths(f"Content-Length: {value}", b"{}", 400),
        )
        for value in ("-5", "+5", "5, 6", "0x2", "2 2", "", "2\r\nContent-Length: 3", "9" * 30)
    ),
    Row(
        id="H09",
        name="Content-Length and chunked",
        expected="400 and closed, or one of them by the standard",
        attack=lengths("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", 400),
    ),
    Row(
        id="H09",
        name="an unknown transfer encoding",
        expected="400 or 501",
        attack=lengths("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n", 400, 501),
    ),
    Row(id="H11", name="no Host", expected="400", attack=host(None, 400)),
    Row(id="H11", name="two Hosts", expected="400", attack=host("a\r\nHost: b", 400)),
    *(
        Row(id="H11", name=f"Host {value[:24]!r}", expected="400", attack=host(value, 400))
        for value in (
            "evil/?",
            "evil#",
            "user:word@evil",
            "evil\\x",
            "e vil",
            "a" * 10_000,
            "x:99999999",
            "[::1",
            "evil?/livez",
        )
    ),
    Row(
        id="H11",
        name="a Host that looks like an open path",
        expected="400 without a key, too",
        attack=host("x/livez?", 400, with_key=False),
    ),
    Row(
        id="H11",
        name="targets that can be read in two ways",
        expected="answered as routed: without a key only by /livez",
        attack=targets,
    ),
    *(
        Row(
            id="H12",
            name=f"a header of {size} bytes",
            expected="431 and closed",
            attack=endless_head(
                size, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * min(size, 65536), 431
            ),
        )
        for size in (65_536, 2**20)
    ),
    Row(
        id="H12",
        name="a header of 100 MB",
        expected="431 and closed",
        attack=endless_head(10**8, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 65536, 431),
    ),
    Row(
        id="H12",
        name="10,000 headers",
        expected="431 and closed",
        attack=endless_head(
            170_000, b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X-Number: 1234\r\n" * 4096, 431
        ),
    ),
    Row(
        id="H12",
        name="a URL of 100 kB",
        expected="414 and closed",
        attack=endless_head(100_000, b"GET /", b"a" * 10_000, 414),
    ),
    Row(
        id="H13",
        name="a chunked body of 10 GB",
        expected="413 at the limit, no longer read",
        attack=endless_body(10 * 2**30),
        with_victim=True,
        budget_ms=5000,
        stall_ms=100,
    ),
    Row(
        id="H13",
        name="an answer before the end of a malformed body",
        expected="the one answer, then closed",
        attack=bad_chunks_behind_an_answer,
        budget_ms=4000,
    ),
    Row(
        id="H22",
        name="HTTP/2",
        expected="400 and closed",
        attack=sends_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ),
    Row(
        id="H22",
        name="TLS",
        expected="400 and closed",
        attack=sends_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, 400),
    ),
    Row(
        id="H22",
        name="random bytes",
        expected="400 and closed; 408 where no line ever ends",
        attack=sends_raw(garbage(1), 400, 408),
    ),
    Row(id="H22", name="a WebSocket", expected="an ordinary answer", attack=upgrade),
    Row(id="H22", name="a storm of random bytes", expected="a short log", attack=storm, budget_ms=10_000),
)
