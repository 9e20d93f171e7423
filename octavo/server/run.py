"""The life of a server process after its first moments (start.py): load, serve, drain, stop.

SIGTERM or SIGINT drains: /readyz says 503 and new requests are refused at once, running ones may finish
within shutdown_timeout. A second signal stops now. Exit status 0 either way. An engine that failed for
good ends the server by itself, with exit status 1. SIGQUIT writes the stacks of all threads. SIGHUP drains
if it says that our terminal is gone; else it is ignored like SIGUSR1, SIGUSR2 and SIGPIPE.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from octavo.base.clock import monotonic
from octavo.base.errors import ConfigError, EngineError, OctavoError
from octavo.base.signals import ignore
from octavo.config.root import EngineConfig
from octavo.config.server import ServerConfig
from octavo.engine.heap import settle_heap
from octavo.observe.loop_lag import LoopLag
from octavo.server.admin.app import create_admin_app
from octavo.server.admin.port import AdminPort
from octavo.server.app import create_app
from octavo.server.connections.connection import Patience, connections
from octavo.server.connections.descriptors import max_connections, report_trouble
from octavo.server.engine_port import EnginePort
from octavo.server.gate import Gate
from octavo.server.lifecycle import Lifecycle
from octavo.server.listen import ACCEPTED_AT_ONCE

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Longer than proxies keep idle connections, so that it is they who close."""
MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together."""
HAND_OVER_S = 1.0
"""How long connections that were accepted last are served as if nothing happened."""
FIRST_REQUEST_S = 4.0
"""How much longer the first request on one is waited for: a busy machine may not have read it yet."""
LAST_WORDS_S = 2
"""Time for final events once everything was aborted."""


class StartedEngine(AdminPort, Protocol):
    """An engine that a server owns: it also ends it."""

    async def failed(self) -> OctavoError:
        """Wait until the engine is of no use any more, and say why."""

    async def shutdown(self) -> None: ...


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: a drain takes more than closing connections."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Answering:
    """One listener and what answers on it."""

    def __init__(self, gate: Gate, server: ServerConfig, listener: socket.socket) -> None:
        self._server = _Server(_loaded(_uvicorn_config(gate, server)))
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    def stop_listening(self) -> None:
        """Accept no more connections; those that are there stay. Others may accept on the same socket.

        asyncio drops a connection that was accepted in the turn in which its server is closed: it is closed
        at the very end only.
        """
        loop = asyncio.get_running_loop()
        for server in self._server.servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())

    def close_idle(self) -> None:
        """Who keeps a connection and asks nothing on it would only be refused there."""
        for connection in self._connections():
            if connection.cycle is not None:
                connection.shutdown()

    @property
    def has_new(self) -> bool:
        """Some connections have not been asked anything on yet."""
        return any(connection.cycle is None for connection in self._connections())

    def _connections(self) -> list[H11Protocol]:
        return [each for each in self._server.server_state.connections if isinstance(each, H11Protocol)]

    def stop(self) -> None:
        """End the main loop at its next tick; give tasks LAST_WORDS_S."""
        self._server.should_exit = True

    async def ended(self) -> None:
        if self._task is not None:
            await self._task


async def serve(
    start_engine: Callable[[], Awaitable[StartedEngine]],
    config: EngineConfig,
    listener: socket.socket,
    admin_listener: socket.socket | None = None,
    *,
    on_ready: Callable[[EnginePort], None] | None = None,
    hands_over: bool = False,
) -> int:
    """Answer on the listeners while the engine starts, then with it, until a signal and a drain.

    hands_over: others accept on the listener beside and after us; we do once we can answer. Raises
    EngineError when the engine fails for good; open streams have got their last event by then.
    """
    gate, lifecycle, stop = Gate(), Lifecycle(), _StopSignals()
    admin_gate = Gate()
    servers = [_Answering(gate, config.server, listener)]
    if admin_listener is not None:
        servers.append(_Answering(admin_gate, config.server, admin_listener))
    asyncio.get_running_loop().set_exception_handler(report_trouble)
    with stop.installed():
        for server in servers[1:] if hands_over else servers:
            server.start()
        starting = asyncio.create_task(_start(start_engine))
        engine: StartedEngine | None = None
        try:
            engine = await _unless_stopped(starting, stop)
            if engine is not None:
                lifecycle.add_background(loop_lag := LoopLag())
                gate.open(create_app(engine, config.server, config.observe, lifecycle, loop_lag))
                if admin_listener is not None:
                    admin_gate.open(create_admin_app(engine, config, lifecycle, loop_lag))
                if hands_over:
                    servers[0].start()
                lifecycle.start_background()
                settle_heap()
                if on_ready is not None:
                    on_ready(engine)
                failure = await _failure_before_stop(engine, stop)
                if failure is not None:
                    raise EngineError(failure.message)
                gate.leave()
                if hands_over:
                    await _hand_over(servers[0], stop)
                await _drain(engine, lifecycle, stop, config.server.shutdown_timeout)
        finally:
            for server in servers:
                server.stop()
            lifecycle.begin_drain()
            if engine is not None:
                # Streams that are still open end with one last event, which needs the connection.
                await engine.shutdown()
            for server in servers:
                await server.ended()
            await lifecycle.close_background()
    return 0


async def _start(start_engine: Callable[[], Awaitable[StartedEngine]]) -> StartedEngine:
    return await start_engine()


async def _unless_stopped(starting: asyncio.Task[StartedEngine], stop: _StopSignals) -> StartedEngine | None:
    """The engine, or None if a signal came first."""
    told = asyncio.create_task(stop.first.wait())
    try:
        waiting: set[asyncio.Task[Any]] = {starting, told}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            return starting.result()
        starting.cancel()
        # Cancelling cannot always stop a start in time; what did start must still be ended.
        started = (await asyncio.gather(starting, return_exceptions=True))[0]
        if not isinstance(started, BaseException):
            await started.shutdown()
        return None
    finally:
        told.cancel()


async def _failure_before_stop(engine: StartedEngine, stop: _StopSignals) -> OctavoError | None:
    """Serve until a signal comes, or the engine fails for good: why it did."""
    told = asyncio.create_task(stop.first.wait())
    failing = asyncio.create_task(engine.failed())
    await asyncio.wait({told, failing}, return_when=asyncio.FIRST_COMPLETED)
    failure = failing.result() if failing.done() and not told.done() else None
    told.cancel()
    failing.cancel()
    return failure


async def _hand_over(server: _Answering, stop: _StopSignals) -> None:
    """Others accept from now on. Who connected just now does not know yet, and may still ask."""
    server.stop_listening()
    now = asyncio.create_task(stop.second.wait())
    await asyncio.wait({now}, timeout=HAND_OVER_S)
    server.close_idle()
    deadline = monotonic() + FIRST_REQUEST_S
    while server.has_new and monotonic() < deadline and not now.done():
        await asyncio.wait({now}, timeout=0.1)
    now.cancel()


async def _drain(engine: StartedEngine, lifecycle: Lifecycle, stop: _StopSignals, timeout_s: float) -> None:
    """Refuse new requests and wait for running ones, until the time is over or a second signal comes."""
    lifecycle.begin_drain()
    logger.info("Draining: %d requests may finish within %.0f s", lifecycle.num_active, timeout_s)
    idle = asyncio.create_task(lifecycle.idle())
    now = asyncio.create_task(stop.second.wait())
    await asyncio.wait({idle, now}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    is_idle, is_forced = idle.done(), now.done()
    idle.cancel()
    now.cancel()
    if not is_idle and not is_forced:
        logger.warning("Ending %d requests: shutdown_timeout is over", lifecycle.num_active)
        await engine.drain(0.0)


class _StopSignals:
    """First and second SIGTERM or SIGINT, and what else may be sent to a server by habit."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @contextlib.contextmanager
    def installed(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        signals = [signal.SIGTERM, signal.SIGINT]
        if os.isatty(0) and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        else:  # Others reload at it. What can be read again, keys, is so without being told.
            ignore(signal.SIGHUP)
        ignore(signal.SIGUSR1, signal.SIGUSR2)
        for number in signals:
            loop.add_signal_handler(number, self._take)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _take(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _loaded(config: uvicorn.Config) -> uvicorn.Config:
    """Read the TLS files now: wrong ones are found out before the model is loaded."""
    if config.ssl_keyfile and not config.ssl_certfile:
        raise ConfigError(
            "ssl_keyfile is the key of a certificate; give ssl_certfile too.", param="ssl_keyfile"
        )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"The TLS files cannot be used: {error.strerror or error}.", param="ssl_certfile"
        ) from None
    return config


def _patience(server: ServerConfig) -> Patience:
    """Raises ConfigError for times that nobody could keep."""
    for name in ("header_timeout", "send_timeout"):
        if not 0.0 < getattr(server, name) < math.inf:
            raise ConfigError(f"{name} is {getattr(server, name)}; over 0 seconds.", param=name)
    return Patience(
        header_timeout_s=server.header_timeout,
        send_timeout_s=server.send_timeout,
        max_connections=max_connections(),
    )


def _uvicorn_config(gate: Gate, server: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http=cast("type[asyncio.Protocol]", connections(_patience(server))),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        root_path=server.root_path,
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_keyfile=server.ssl_keyfile,
        ssl_certfile=server.ssl_certfile,
    )
