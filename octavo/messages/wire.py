"""The two unions that cross between engine and core, and their codec (msgpack, typed, no pickle)."""

from __future__ import annotations

import msgspec

from octavo.messages.request import AbortRequest, EngineRequest, Samples
from octavo.messages.result import CoreStats, RequestDelta
from octavo.messages.start import CoreReady


class ResetPrefixCache(msgspec.Struct, frozen=True, tag="reset_prefix_cache"):
    """Forget all reusable prefixes. This and the next five are orders: each is answered by OrderDone."""


class Sleep(msgspec.Struct, frozen=True, tag="sleep"):
    """Give memory back: 1 the KV cache (and a GPU's weights to the host), 2 the weights altogether."""

    level: int


class WakeUp(msgspec.Struct, frozen=True, tag="wake_up"):
    """Take the memory again, and the weights."""


class StartProfile(msgspec.Struct, frozen=True, tag="start_profile"):
    """Record what the core and its workers do from now on."""


class StopProfile(msgspec.Struct, frozen=True, tag="stop_profile"):
    """Write what was recorded."""

    folder: str


class SetLogLevel(msgspec.Struct, frozen=True, tag="set_log_level"):
    level: str


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Say Alive between two steps: who is silent for long is stuck, with work or without."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Free everything and end."""


class CoreUpdate(msgspec.Struct, frozen=True, kw_only=True, tag="update", omit_defaults=True):
    """What one step changed."""

    deltas: list[RequestDelta]
    stats: CoreStats
    block_seconds: dict[str, float] = {}
    """By tenant: what requests that ended held of the KV cache, blocks times seconds."""


class CoreFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The core cannot start or go on. Carries the cause typed, so that the parent raises the same error."""

    error: str
    """Class name in base.errors."""
    code: str
    """Name in ErrorCode."""
    message: str
    param: str | None = None


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Answer to a Ping."""


class CoreBusy(msgspec.Struct, frozen=True, tag="busy"):
    """The core does something that may take long, and is silent until its next message."""

    doing: str


class OrderDone(msgspec.Struct, frozen=True, kw_only=True, tag="order_done"):
    """An order was carried out, or not: answers come in the sequence of the orders."""

    file: str | None = None
    """What a profile was written to."""
    failure: CoreFailed | None = None
    """Why it was not; the core goes on."""


Order = ResetPrefixCache | Sleep | WakeUp | StartProfile | StopProfile | SetLogLevel
ToCore = EngineRequest | Samples | AbortRequest | Ping | Shutdown | Order
FromCore = CoreReady | CoreUpdate | CoreFailed | OrderDone | Alive | CoreBusy
