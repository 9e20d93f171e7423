"""A real server on a free loopback port, in a thread. As in production the application is behind the gate."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from server_fakes import FakeEngine
from starlette.types import ASGIApp

from octavo.server.app import create_app
from octavo.server.connections.connection import Patience, connections
from octavo.server.gate import Gate

PATIENCE = Patience(header_timeout_s=20, send_timeout_s=60, max_connections=1000)


class LiveServer:
    """uvicorn in a thread on a free loopback port."""

    def __init__(self, engine: FakeEngine, app: ASGIApp | None = None) -> None:
        """app: another one than that for clients."""
        self.engine = engine
        gate = Gate()
        gate.open(app or create_app(engine, engine.config.server, engine.config.observe))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            gate,
            http=connections(PATIENCE),  # type: ignore[arg-type]
            loop="asyncio",
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
