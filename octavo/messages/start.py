"""What is said once, at start: what a worker found, what the core decided."""

from __future__ import annotations

import msgspec

from octavo.config.root import EngineConfig
from octavo.messages.kv import KVPlan, KVSpec


class StartCore(msgspec.Struct, frozen=True, kw_only=True):
    """First frame to a new core process: everything it needs to load the model."""

    config: EngineConfig
    """Resolved."""
    path: str
    """The model's folder or file on this machine."""


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker knows after it loaded the model."""

    kv_layers: list[KVSpec]
    """One per attention layer, in model order."""
    vocab_size: int
    """Width of the logits."""
    hidden_size: int
    """Width of the vectors that stand for tokens inside the model."""
    available_bytes: int
    """Memory that the KV cache may take."""
    memory_bytes: dict[str, int]
    """Where memory went: weights, rows, ..."""
    seconds: dict[str, float]
    """Where time went: import, weights, ..."""


class CoreReady(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The core serves from now on."""

    plan: KVPlan
    max_request_tokens: int
    """Most tokens (prompt + output) that one request can ever hold: model length or cache size."""
    vocab_size: int
    hidden_size: int
    memory_bytes: dict[str, int]
    seconds: dict[str, float]
