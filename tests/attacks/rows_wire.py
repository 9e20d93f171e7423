"""Rows 2.1, second part: what no HTTP client sends, and what clients do not do."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil

from tests.attacks.after import slowness
from tests.attacks.arena import HEADER_TIMEOUT_S, MAX_BODY_BYTES, SEND_TIMEOUT_S, Arena
from tests.attacks.row import Attack, Row
from tests.attacks.send import COMPLETIONS, HUNG_UP, UNSPEAKABLE, raw_reply, sends_raw

REQUEST = {"prompt": "x", "max_tokens": 4, "temperature": 0}
LONG_REQUEST = {"prompt": "x", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "logprobs": 10}


def head(arena: Arena, *lines: str, path: str = COMPLETIONS, method: str = "POST", host: str = "x") -> bytes:
    """A head with our key, ready for a body."""
    all_lines = (
        f"{method} {path} HTTP/1.1",
        *([f"Host: {host}"] if host else []),
        f"Authorization: {arena.auth['authorization']}",
        *lines,
    )
    return "\r\n".join(all_lines).encode() + b"\r\n\r\n"


def whole(arena: Arena, body: dict[str, object], *lines: str) -> bytes:
    data = json.dumps(body).encode()
    return head(arena, "Content-Type: application/json", f"Content-Length: {len(data)}", *lines) + data


def status_of(answer: bytes) -> int:
    """Of the last response but '100 Continue'."""
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


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


def refuses_to_start(*flags: str, says: str, taken: bool = False) -> Attack:
    """`octavo serve` ends at once, before the model is loaded, with one clear message and nothing left."""

    def attack(arena: Arena) -> None:
        port = str(arena.port) if taken else "0"
        filled = [flag.replace("MODEL", str(arena.model)) for flag in flags]
        command = [
            sys.executable,
            "-m",
            "octavo.cli.main",
            "serve",
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


WIRE_ROWS: tuple[Row, ...] = (
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
        id="H17",
        name="one byte of the head at a time",
        expected="each is closed after the header time-out",
        attack=slowloris,
        with_victim=True,
        budget_ms=12_000,
        stall_ms=400,
    ),
    Row(
        id="H18",
        name="connected and silent",
        expected="each is closed after the header time-out",
        attack=silence,
        with_victim=True,
        budget_ms=12_000,
        stall_ms=400,
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


CROWD_ROWS: tuple[Row, ...] = (
    Row(
        id="H24",
        name="500 connections, few descriptors",
        only_full=True,
        expected="no spinning; well when they have gone",
        attack=crowd,
        budget_ms=20_000,
        stall_ms=100,
    ),
)
