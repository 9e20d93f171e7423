"""ProcessCore: the core in a process of its own, reached over a private Unix socket.

The child holds the read end of a pipe that only we keep open: when we die, however it happens, it
sees the end of the pipe and exits. The socket lives in a folder that only this user can enter, and frames
are sealed with a key that only the child was given: what anybody else sends is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from octavo.base.errors import EngineError
from octavo.engine.core_client import raised
from octavo.engine.sealed import opened
from octavo.messages.seal import FROM_CORE, MAX_FRAME_BYTES, TO_CORE, Seal, new_key
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import CoreFailed, FromCore, Shutdown, ToCore

GRACE_S = 5.0
"""What a core gets to free its memory before it is killed."""

LAST_WORDS_S = 0.5
DUMP_S = 1.0
"""Time for a stuck core to write its stacks."""
READABLE = int(zmq.POLLIN)


class _Context(zmq.asyncio.Context):
    """One whose end waits for nobody where an engine is dropped without being shut down.

    pyzmq's waits for its sockets, and a collector may come to it before it comes to them: whatever thread it
    ran in stood still for ever.
    """

    def __del__(self) -> None:
        pass


class ProcessCore:
    """A CoreClient whose core is a child process."""

    is_same_process = False

    def __init__(self, entry: Sequence[str] = ("-m", "octavo.engine.core_main")) -> None:
        """`entry`: what Python runs as the core; the socket's address is added as its last argument."""
        self._is_started = False
        self._entry = entry
        self._folder = Path(tempfile.mkdtemp(prefix="octavo-"))  # mode 0700
        self._context = _Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._raw: zmq.Socket[bytes] = zmq.Socket.shadow(self._socket.underlying)
        """The same socket, asked without waiting."""
        self._failure: CoreFailed | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._exit: asyncio.Task[int] | None = None
        self._key = new_key()
        self._out, self._in = Seal(self._key, TO_CORE), Seal(self._key, FROM_CORE)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromCore] = msgspec.msgpack.Decoder(FromCore)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def launch(self) -> None:
        address = f"ipc://{self._folder}/core"
        self._socket.bind(address)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._entry, address, stdin=asyncio.subprocess.PIPE
        )
        self._exit = asyncio.create_task(self._process.wait())
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.write(self._key)

    async def start(self, start: StartCore) -> CoreReady:
        self._is_started = True
        try:
            await self._send_start(start)
            (message,) = await self.receive()
        except BaseException:
            await self.close()
            raise
        assert isinstance(message, CoreReady), "a core first says that it is ready"
        # We are connected. What nobody needs any more nobody can leave behind.
        shutil.rmtree(self._folder, ignore_errors=True)
        return message

    async def _send_start(self, start: StartCore) -> None:
        """Until a core has connected a message waits; one that is gone never will."""
        assert self._exit is not None, "launched"
        sending = asyncio.ensure_future(self._socket.send(self._out.close(self._encoder.encode(start))))
        await asyncio.wait((sending, self._exit), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            sending.cancel()  # What `receive` finds says why.

    def send(self, message: ToCore) -> None:
        # Never waits: the queue has no high-water mark, so the future is already done. It has failed only
        # when the core is gone, which receive() reports.
        sent = self._socket.send(self._out.close(self._encoder.encode(message)), zmq.NOBLOCK)
        asyncio.ensure_future(sent).exception()

    async def receive(self) -> list[FromCore]:
        if self._failure is not None:
            raise raised(self._failure)
        messages: list[FromCore] = []
        frames = [await self._first_message(), *self._further_messages()]
        for frame in frames:
            message = self._decoder.decode(frame)
            if isinstance(message, CoreFailed):
                self._failure = message  # What came before it still counts.
                break
            messages.append(message)
        if not messages and self._failure is not None:
            raise raised(self._failure)
        return messages

    def _further_messages(self) -> Iterator[memoryview]:
        """What else has arrived: a server that is behind takes it in at once and sends it on as one."""
        while self._raw.getsockopt(zmq.EVENTS) & READABLE:  # type: ignore[operator]
            message = opened(self._in, self._raw.recv())
            if message is not None:
                yield message

    async def _first_message(self) -> memoryview:
        while True:
            message = opened(self._in, await self._first_frame())
            if message is not None:
                return message

    async def _first_frame(self) -> bytes:
        assert self._exit is not None, "started"
        frame: asyncio.Future[bytes] = asyncio.ensure_future(self._socket.recv())
        if frame.done():
            return frame.result()
        await asyncio.wait((frame, self._exit), return_when=asyncio.FIRST_COMPLETED)
        if not frame.done():
            # The last message of a core that has just ended may still be on its way.
            await asyncio.wait((frame,), timeout=LAST_WORDS_S)
        if not frame.done():
            frame.cancel()
            status = self._exit.result()
            raise EngineError(
                f"The engine core ended unexpectedly ({_how(status)}). Its last words are in the log."
            )
        return frame.result()

    async def end_stuck(self) -> bool:
        assert self._process is not None and self._exit is not None, "started"
        with contextlib.suppress(ProcessLookupError):  # It may end by itself at any moment.
            self._process.send_signal(signal.SIGQUIT)  # Answered by `faulthandler`, even in the midst of C.
            self._process.send_signal(signal.SIGCONT)  # Who is stopped takes no other signal.
            await asyncio.wait((self._exit,), timeout=DUMP_S)
            if self._process.returncode is None:
                self._process.kill()
        return True

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            assert self._exit is not None, "started"
            if self._is_started:
                self.send(Shutdown())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._exit), GRACE_S)
            if self._process.returncode is None:
                self._process.kill()
                await self._exit
        if not self._socket.closed:
            self._socket.close()
            self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
