"""HelperPool: wishes are compiled in processes that can be killed, so that no wish can hurt the server.

Helpers start with the first wish. One that spends too much time or memory on a wish is killed and replaced;
the wish is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Coroutine

import msgspec

from octavo.base.errors import EngineError, ErrorCode
from octavo.grammar.limits import COMPILE_WALL_S
from octavo.grammar.outcome import Outcome, too_complex
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.structured import StructuredOutputsParams

logger = logging.getLogger(__name__)

START_S = 60.0
MAX_WAITING = 256


class HelperPool:
    """At most `num_helpers` processes. Belongs to one event loop."""

    def __init__(self, vocabulary: Callable[[], Vocabulary], *, num_helpers: int = 2) -> None:
        """vocabulary: called once, in a thread."""
        self._make_vocabulary = vocabulary
        self._vocabulary: asyncio.Task[bytes] | None = None
        self._idle: list[_Helper] = []
        self._all: set[_Helper] = set()
        self._free = asyncio.Semaphore(num_helpers)
        self._replacing: set[asyncio.Task[None]] = set()
        self._num_waiting = 0
        self._is_closed = False

    async def compile(self, wish: StructuredOutputsParams) -> Outcome:
        """Check a wish. Raises EngineError when too many wait, or no helper can be started."""
        if self._num_waiting >= MAX_WAITING:
            raise EngineError(
                "Too many grammars wait to be compiled. Try again soon.", code=ErrorCode.OVERLOADED
            )
        self._num_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._num_waiting -= 1
        helper: _Helper | None = None
        is_fine = False
        try:
            helper = self._idle.pop() if self._idle else await self._start()
            if len(self._all) == 1 and not self._replacing:
                # From the first wish on one stands by: nobody waits for a start after a bomb.
                self._in_background(self._stand_by())
            outcome = await asyncio.wait_for(helper.ask(wish), COMPILE_WALL_S)
            is_fine = True
            return outcome
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return too_complex(wish.kind)
        finally:
            if helper is not None and is_fine and not self._is_closed:
                self._idle.append(helper)
                self._free.release()
            else:
                # Also where the caller is gone: the answer to come would be taken for somebody else's.
                self._in_background(self._replace(helper))

    async def close(self) -> None:
        """End all helpers. Idempotent."""
        self._is_closed = True
        if self._vocabulary is not None:
            self._vocabulary.cancel()
        for task in list(self._replacing):
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        for helper in list(self._all):
            await self._end(helper)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        self._replacing.add(task := asyncio.create_task(work))
        task.add_done_callback(self._replacing.discard)

    async def _stand_by(self) -> None:
        await self._free.acquire()
        try:
            if len(self._all) == 1 and not self._is_closed:
                self._idle.append(await self._start())
        except EngineError as error:
            logger.warning("%s", error.message)
        finally:
            self._free.release()

    async def _replace(self, helper: _Helper | None) -> None:
        """Nobody waits for this: the next wish finds a helper that is ready."""
        try:
            if helper is not None:
                await self._end(helper)
                self._idle.append(await self._start())
        except EngineError as error:
            logger.warning("%s", error.message)
        finally:
            self._free.release()

    async def _start(self) -> _Helper:
        if self._is_closed:
            raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)
        if self._vocabulary is None:
            self._vocabulary = asyncio.create_task(asyncio.to_thread(self._encoded_vocabulary))
        # Shielded: the next request needs it even if this one is gone.
        vocabulary = await asyncio.shield(self._vocabulary)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "octavo.grammar.helper_main",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        helper = _Helper(process)
        self._all.add(helper)
        try:
            await asyncio.wait_for(helper.exchange(vocabulary), START_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            await self._end(helper)
            raise EngineError("The process that compiles grammars did not start.") from error
        except asyncio.CancelledError:
            await self._end(helper)
            raise
        return helper

    async def _end(self, helper: _Helper) -> None:
        self._all.discard(helper)
        if helper in self._idle:
            self._idle.remove(helper)
        await helper.kill()

    def _encoded_vocabulary(self) -> bytes:
        return msgspec.msgpack.encode(self._make_vocabulary())


class _Helper:
    """Our end of one process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, wish: StructuredOutputsParams) -> Outcome:
        return msgspec.msgpack.decode(await self.exchange(msgspec.msgpack.encode(wish)), type=Outcome)

    async def exchange(self, data: bytes) -> bytes:
        """Send a frame and read one."""
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None and source is not None, "both are pipes"
        sink.write(len(data).to_bytes(4, "little") + data)
        await sink.drain()
        length = int.from_bytes(await source.readexactly(4), "little")
        return await source.readexactly(length)

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
