"""Which backend serves a model: the first whose capabilities cover the needs."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from octavo.attention.contract import AttentionBackend, Capability
from octavo.attention.table import BACKENDS
from octavo.base.errors import ConfigError
from octavo.messages.kv import KVKind, KVSpec

NATIVE = "native"
_KINDS = {
    KVKind.FULL: Capability.FULL,
    KVKind.SLIDING_WINDOW: Capability.SLIDING_WINDOW,
    KVKind.LATENT: Capability.LATENT,
}


def attention_needs(
    layers: Iterable[KVSpec],
    num_heads: int,
    dtype: torch.dtype,
    device: torch.device,
    kv_dtype: torch.dtype | None = None,
) -> frozenset[Capability]:
    """What a model with these layers needs, computed in `dtype` on `device`; None keeps that type."""
    specs = list(layers)
    needs = {_KINDS[spec.kind] for spec in specs}
    if any(spec.num_kv_heads != num_heads for spec in specs):
        needs.add(Capability.GROUPED_HEADS)
    if not all(spec.has_plain_softmax for spec in specs):
        needs.add(Capability.SCORE_TERMS)
    needs.add(Capability(str(dtype).removeprefix("torch.")))
    if kv_dtype not in (None, dtype) and specs:
        needs.add(Capability.OTHER_KV_DTYPE)
    needs.add(Capability(device.type))
    return frozenset(needs)


def choose_backend(needs: frozenset[Capability], *, has_native: bool = False) -> type[AttentionBackend]:
    """The first backend that can; native kernels only where an engine has them.

    Raises ConfigError that says what each one lacks.
    """
    lacks: list[str] = []
    for name in BACKENDS:
        if name == NATIVE and not has_native:
            continue
        backend = BACKENDS.load(name)
        missing = needs - backend.capabilities
        if not missing:
            return backend
        lacks.append(f"{name} lacks {', '.join(sorted(missing))}")
    raise ConfigError(
        f"No attention backend can serve this model here: {'; '.join(lacks)}. "
        "Choose another dtype, kv_cache_dtype or device, or another model."
    )
