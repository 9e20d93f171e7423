"""The same server within TLS: answers, streams, early answers, and files that cannot be used."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_fakes import fake_config
from test_raw_http import ORDER, status_of_reply
from test_server_life import Starter
from test_server_life import start as start

from octavo.base.errors import ConfigError
from octavo.server.gate import Gate
from octavo.server.run import _Answering

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", *words, *names], check=True, capture_output=True)
    return {"ssl_keyfile": key, "ssl_certfile": certificate}


def test_answers_within_tls(start: Starter, files: dict[str, str]) -> None:
    server = start(config=files)
    server.wait_ready()
    context = ssl.create_default_context(cafile=files["ssl_certfile"])
    url = server.url.replace("http://", "https://")
    with httpx.Client(base_url=url, verify=context, timeout=30) as client:
        body = {"prompt": "x", "max_tokens": 20}
        text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
        stream = client.post("/v1/completions", json={**body, "stream": True}).text
        assert len(text) == 20 and stream.count("data: ") == 21
    for close in (b"", b"Connection: close\r\n"):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as plain:
            connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
            connection.sendall(ORDER.replace(b"14", b"300000") + close + b"\r\n")
            assert status_of_reply(connection) == 400, "before its body has come"
            for _ in range(3):
                connection.sendall(bytes(100_000))
                time.sleep(0.1)


def test_who_was_to_be_told_whether_to_send_finds_the_connection_closed(
    start: Starter, files: dict[str, str]
) -> None:
    server = start(config=files)
    server.wait_ready()
    context = ssl.create_default_context(cafile=files["ssl_certfile"])
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
        connection.sendall(ORDER + b"Expect: 100-continue\r\n\r\n")
        assert status_of_reply(connection) == 400
        assert connection.recv(1) == b"", "at its end, not reset in the midst of a next request"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"ssl_certfile": None}, "ssl_keyfile"),
        ({"ssl_certfile": "/no/such/file"}, "ssl_certfile"),
        ({"ssl_keyfile": None}, "ssl_certfile"),
    ],
)
def test_files_that_cannot_be_used(
    files: dict[str, str], change: dict[str, Any], param: str, tmp_path: Path
) -> None:
    config = fake_config(**{**files, **change})
    with socket.socket() as listener, pytest.raises(ConfigError) as error:
        _Answering(Gate(), config.server, listener)
    assert error.value.param == param
