"""What a request leaves is freed at once: circles wait for the collector, which stops the event loop."""

from __future__ import annotations

import gc
import json
import socket

import pytest
from server_live import LiveServer, until
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import RequestResponseCycle


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"prompt": "x", "stream": True}, {"prompt": 5}])
def test_an_answered_request_is_freed_without_the_collector(live: LiveServer, body: object) -> None:
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    request = f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + data
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
                connection.sendall(request)
                while connection.recv(65536):
                    pass
        until(lambda: num_kept() <= 2)  # the last one may be kept by its connection
    finally:
        gc.enable()


def num_kept() -> int:
    return sum(isinstance(thing, RequestResponseCycle | Request) for thing in gc.get_objects())
