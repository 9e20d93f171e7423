"""Whether the server takes new requests, how many it is answering, and what it does besides."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.paths import DRAIN_PATHS, OPEN_PATHS, route_path


class Background(Protocol):
    """Work that a server does on its own account, beside answering."""

    def start(self) -> None:
        """Take up what an earlier server left. Called in the event loop, once the application answers."""

    def stop(self) -> None:
        """Begin nothing more and drop what runs: the server drains."""

    async def close(self) -> None:
        """Let everything go: nothing is answered any more."""


class Lifecycle:
    """Serving, then draining; never back."""

    def __init__(self) -> None:
        self._background: list[Background] = []
        self._is_draining = False
        self._num_active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def num_active(self) -> int:
        """Requests being answered, probes not counted."""
        return self._num_active

    def begin_drain(self) -> None:
        """From now on new requests are refused; running ones go on. Again it changes nothing."""
        if self._is_draining:
            return
        self._is_draining = True
        for work in self._background:
            work.stop()

    def add_background(self, work: Background) -> None:
        """Have `work` started, stopped and closed with the server."""
        self._background.append(work)

    def start_background(self) -> None:
        for work in self._background:
            work.start()

    async def close_background(self) -> None:
        """Once the last answer has ended."""
        self.begin_drain()
        for work in self._background:
            await work.close()

    async def idle(self) -> None:
        """Wait until nothing is being answered."""
        await self._idle.wait()

    def enter(self) -> None:
        self._num_active += 1
        self._idle.clear()

    def leave(self) -> None:
        self._num_active -= 1
        if not self._num_active:
            self._idle.set()


class Admission:
    """Middleware: counts requests while they run and refuses new ones while draining."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        if self._lifecycle.is_draining and path not in DRAIN_PATHS:
            raise EngineError("The server is shutting down; send it elsewhere.", code=ErrorCode.SHUTTING_DOWN)
        if path in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        self._lifecycle.enter()
        try:
            await self.app(scope, receive, send)
        finally:
            self._lifecycle.leave()
