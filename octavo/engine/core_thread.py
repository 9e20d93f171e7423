"""ThreadCore: the core in a thread of the caller's process. For notebooks, tests and single-process use."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

from octavo.base.errors import EngineError
from octavo.core.loop import EngineCore
from octavo.engine.core_client import raised
from octavo.engine.core_failure import describe_failure
from octavo.engine.core_serve import serve_core
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import CoreFailed, FromCore, Shutdown, ToCore

StartsCore = Callable[[StartCore], tuple[EngineCore, CoreReady]]


class ThreadCore:
    """A CoreClient whose core shares the process."""

    is_same_process = True

    def __init__(self, starts_core: StartsCore) -> None:
        self._starts_core = starts_core
        self._inbox: queue.SimpleQueue[ToCore] = queue.SimpleQueue()
        self._outbox: asyncio.Queue[FromCore] = asyncio.Queue()
        self._thread: threading.Thread | None = None
        self._failure: CoreFailed | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def launch(self) -> None:
        """A thread has nothing to do before it has a model."""

    async def start(self, start: StartCore) -> CoreReady:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(start,), name="octavo-core", daemon=True)
        self._thread.start()
        message = await self._outbox.get()
        if isinstance(message, CoreFailed):
            raise raised(message)
        assert isinstance(message, CoreReady), "a core first says that it is ready"
        return message

    def send(self, message: ToCore) -> None:
        self._inbox.put(message)

    async def receive(self) -> list[FromCore]:
        if self._failure is not None:
            raise raised(self._failure)
        messages: list[FromCore] = []
        message = await self._outbox.get()
        while not isinstance(message, CoreFailed):
            messages.append(message)
            if self._outbox.empty():
                return messages
            message = self._outbox.get_nowait()
        self._failure = message  # What came before it still counts.
        if not messages:
            raise raised(message)
        return messages

    async def end_stuck(self) -> bool:
        return False

    async def close(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self.send(Shutdown())
            await asyncio.to_thread(self._thread.join)

    def _run(self, start: StartCore) -> None:
        try:
            core, ready = self._starts_core(start)
            self._report(ready)
            try:
                serve_core(core, _ThreadChannel(self._inbox, self._report))
            finally:
                core.shutdown()
            self._report(
                CoreFailed(error="EngineError", code="SHUTTING_DOWN", message="The engine has shut down.")
            )
        except Exception as error:
            self._report(describe_failure(error))

    def _report(self, message: FromCore) -> None:
        assert self._loop is not None, "started"
        try:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, message)
        except RuntimeError as error:
            # The caller's event loop is closed: nobody is left to serve.
            raise EngineError("The event loop of this engine was closed.") from error


class _ThreadChannel:
    """The core's end."""

    def __init__(self, inbox: queue.SimpleQueue[ToCore], report: Callable[[FromCore], None]) -> None:
        self._inbox = inbox
        self.send = report

    def receive(self, wait: bool) -> list[ToCore]:
        messages = [self._inbox.get()] if wait else []
        while True:
            try:
                messages.append(self._inbox.get_nowait())
            except queue.Empty:
                return messages
