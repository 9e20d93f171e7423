"""The core's loop: take messages, step, report. The same for a thread and for a process of its own."""

from __future__ import annotations

from typing import Protocol

from octavo.base.errors import RequestError
from octavo.core.loop import EngineCore
from octavo.engine.core_orders import carry_out
from octavo.messages.request import AbortRequest, EngineRequest, Samples
from octavo.messages.result import FinishReason, RequestDelta
from octavo.messages.wire import Alive, CoreBusy, CoreUpdate, FromCore, Order, Ping, Shutdown, ToCore


class CoreChannel(Protocol):
    """The core's end of the line to the engine."""

    def receive(self, wait: bool) -> list[ToCore]:
        """All messages that are there; with `wait`, at least one."""

    def send(self, message: FromCore) -> None: ...


def serve_core(core: EngineCore, channel: CoreChannel) -> None:
    """Run until told to shut down. Raises what the executor raises when it cannot go on.

    Where steps overlap, `core.step` hands over the next step before it waits for the one before: between
    two steps nothing else waits, and the device has work while we report and take messages in.
    """
    while take_turn(core, channel):
        pass


def take_turn(core: EngineCore, channel: CoreChannel) -> bool:
    """Take what has come, step once, report. False: it was told to shut down."""
    deltas: list[RequestDelta] = []
    for message in channel.receive(wait=not core.has_work()):
        if isinstance(message, Shutdown):
            return False
        deltas.extend(_handle(core, channel, message))
    num_collected = core.num_collected
    if core.has_work():
        deltas.extend(core.step())
    # A step that was only handed over is no news, and must not wake anybody up.
    if deltas or core.num_collected != num_collected:
        held = core.take_block_seconds()
        channel.send(CoreUpdate(deltas=deltas, stats=core.stats(), block_seconds=held))
    return True


def _handle(
    core: EngineCore, channel: CoreChannel, message: EngineRequest | Samples | AbortRequest | Ping | Order
) -> list[RequestDelta]:
    if isinstance(message, EngineRequest):
        return _add(core, message)
    if isinstance(message, Samples):
        return [delta for sample in message.apart() for delta in _add(core, sample)]
    if isinstance(message, AbortRequest):
        return core.abort(message.request_ids)
    if isinstance(message, Ping):
        channel.send(Alive())
        return []
    channel.send(CoreBusy(doing=type(message).__name__))
    channel.send(carry_out(core, message))
    return []


def _add(core: EngineCore, request: EngineRequest) -> list[RequestDelta]:
    try:
        core.add(request)
    except RequestError as error:
        return [_refused(request, error)]
    return []


def _refused(request: EngineRequest, error: RequestError) -> RequestDelta:
    return RequestDelta(
        request_id=request.request_id, token_ids=[], finish_reason=FinishReason.ERROR, error=error.message
    )
