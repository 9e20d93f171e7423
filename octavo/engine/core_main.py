"""Entry of a core process: `python -m octavo.engine.core_main ADDRESS`, started by ProcessCore only."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from octavo.base.signals import ignore
from octavo.core.loop import EngineCore
from octavo.engine.core_failure import describe_failure
from octavo.engine.core_serve import serve_core
from octavo.engine.core_start import import_worker, start_core
from octavo.engine.heap import settle_heap
from octavo.engine.sealed import opened
from octavo.messages.seal import FROM_CORE, KEY_BYTES, MAX_FRAME_BYTES, TO_CORE, Seal
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import FromCore, ToCore
from octavo.observe.log import set_up_logging

READABLE = int(zmq.POLLIN)

StartsCore = Callable[[StartCore], tuple[EngineCore, CoreReady]]


class SocketChannel:
    """The core's end of a PAIR socket."""

    def __init__(self, socket: zmq.Socket[bytes], key: bytes) -> None:
        self._socket = socket
        self._in, self._out = Seal(key, TO_CORE), Seal(key, FROM_CORE)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ToCore] = msgspec.msgpack.Decoder(ToCore)

    def receive(self, wait: bool) -> list[ToCore]:
        messages: list[ToCore] = []
        if wait:
            messages.append(self._decoder.decode(self.take()))
        # Asked between all steps: an exception for every "nothing there" would cost more than the asking.
        while self._socket.getsockopt(zmq.EVENTS) & READABLE:  # type: ignore[operator]
            message = opened(self._in, self._socket.recv())
            if message is not None:
                messages.append(self._decoder.decode(message))
        return messages

    def take(self) -> memoryview:
        """The next message, undecoded. Waits."""
        while (message := opened(self._in, self._socket.recv())) is None:
            continue
        return message

    def send(self, message: FromCore) -> None:
        self._socket.send(self._out.close(self._encoder.encode(message)))


def main(
    address: str, starts_core: StartsCore = start_core, prepare: Callable[[], None] = import_worker
) -> None:
    """Serve one engine until it says so or is gone. The last two are others only in benchmarks."""
    # The parent decides when we end: what is sent to the whole group reaches it too, and it drains first.
    ignore(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    # Stacks of all threads to standard error, for whoever wants to know where we are stuck.
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    key = os.read(0, KEY_BYTES)
    threading.Thread(target=_die_with_parent, args=(address,), daemon=True).start()
    context = zmq.Context()
    socket = context.socket(zmq.PAIR)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.LINGER, 2000)
    socket.connect(address)
    channel = SocketChannel(socket, key)
    try:
        prepare()
        start = msgspec.msgpack.decode(channel.take(), type=StartCore)
        set_up_logging(start.config.observe.log_format, start.config.observe.log_level)
        core, ready = starts_core(start)
        settle_heap()
        channel.send(ready)
        try:
            serve_core(core, channel)
        finally:
            core.shutdown()
    except Exception as error:
        channel.send(describe_failure(error))
        socket.close()
        context.term()
        sys.exit(1)


def _die_with_parent(address: str) -> None:
    """Our standard input is a pipe that only the parent holds: its end means that the parent is gone."""
    os.read(0, 1)
    # It was killed, or would have done so itself.
    shutil.rmtree(Path(address.removeprefix("ipc://")).parent, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
