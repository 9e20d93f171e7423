"""The two unions that cross between engine and core, and their codec (msgpack, typed, no pickle)."""

from __future__ import annotations

import msgspec

from octavo.messages.request import AbortRequest, EngineRequest
from octavo.messages.result import CoreStats, RequestDelta
from octavo.messages.start import CoreReady


class ResetPrefixCache(msgspec.Struct, frozen=True, tag="reset_prefix_cache"):
    """Forget all reusable prefixes; answered by PrefixCacheReset."""


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Free everything and end."""


class CoreUpdate(msgspec.Struct, frozen=True, kw_only=True, tag="update"):
    """What one step changed."""

    deltas: list[RequestDelta]
    stats: CoreStats


class PrefixCacheReset(msgspec.Struct, frozen=True, tag="prefix_cache_reset"):
    done: bool


class CoreFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The core cannot start or go on. Carries the cause typed, so that the parent raises the same error."""

    error: str
    """Class name in base.errors."""
    code: str
    """Name in ErrorCode."""
    message: str
    param: str | None = None


ToCore = EngineRequest | AbortRequest | ResetPrefixCache | Shutdown
FromCore = CoreReady | CoreUpdate | CoreFailed | PrefixCacheReset
