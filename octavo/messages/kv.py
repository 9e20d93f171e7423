"""KV cache facts that model, core and worker agree on: specs per layer, groups of layers, the plan.

A block id names one page in every layer of its group. All groups draw from one pool, so a page has
the same size everywhere: tensor i of the worker holds page b of the i-th layer of whichever group
owns block b.
"""

from __future__ import annotations

from enum import StrEnum
from math import prod
from typing import NamedTuple

import msgspec


class KVKind(StrEnum):
    FULL = "full"
    SLIDING_WINDOW = "sliding_window"
    LATENT = "latent"
    """One row per token is key and, in its first columns, value."""


class KVDtype(NamedTuple):
    """In which numbers keys and values are kept."""

    num_bytes: int
    scale_bytes: int = 0
    """Of what each key, and each value, of a head is multiplied with."""


KV_DTYPES = {
    "float32": KVDtype(4),
    "bfloat16": KVDtype(2),
    "float16": KVDtype(2),
    "int8": KVDtype(1, scale_bytes=4),
}
"""By name, as torch has it."""


class KVSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one attention layer keeps per token. Layers with equal specs may share block tables."""

    kind: KVKind
    num_kv_heads: int
    head_dim: int
    dtype_bytes: int
    window: int | None = None
    """Tokens a query sees, itself included (sliding_window only)."""
    value_dim: int | None = None
    """Columns of a key that are its value (latent only)."""
    has_plain_softmax: bool = True
    """Scores go through softmax as they are: no soft cap, no sinks, no linear biases."""
    scale_bytes: int = 0
    """As KVDtype has it."""

    @property
    def bytes_per_token(self) -> int:
        rows = 1 if self.kind is KVKind.LATENT else 2
        return rows * self.num_kv_heads * (self.head_dim * self.dtype_bytes + self.scale_bytes)

    def kept_as(self, dtype: str) -> KVSpec:
        """The same in other numbers, one of KV_DTYPES."""
        kept = KV_DTYPES[dtype]
        return msgspec.structs.replace(self, dtype_bytes=kept.num_bytes, scale_bytes=kept.scale_bytes)


class StatePart(msgspec.Struct, frozen=True, kw_only=True):
    shape: list[int]
    dtype_bytes: int
    """4: float32, whatever the model computes in."""


class StateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one recurrent layer keeps of a request, however long it is: tensors in the request's row."""

    parts: list[StatePart]

    @property
    def bytes_per_row(self) -> int:
        return sum(prod(part.shape) * part.dtype_bytes for part in self.parts)


class KVGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that share one block table. `layers` are attention-layer indices in model order."""

    spec: KVSpec
    layers: list[int]


class KVPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How the cache is laid out: what core and worker are both built from. No groups: nothing is kept."""

    block_size: int
    num_blocks: int
    groups: list[KVGroup]
    page_bytes: int
    """Bytes of one block in one layer."""

    @property
    def num_tensors(self) -> int:
        """Physical page arrays: the most layers any group has."""
        return max((len(group.layers) for group in self.groups), default=0)

    @property
    def block_bytes(self) -> int:
        return self.num_tensors * self.page_bytes
