"""Where a model is put, and in which numbers it computes, by its options."""

from __future__ import annotations

import torch

from octavo.config.model import ModelConfig
from octavo.layers.placement import Placement
from octavo.ops.cpu.engine import NativeEngine, native_engine


def placement_of(model: ModelConfig) -> Placement:
    """`model` is resolved."""
    assert model.max_model_len is not None, "the config is resolved"
    dtype, native = getattr(torch, model.dtype), _native(model)
    return Placement(
        dtype=dtype if native is None else torch.float32,
        device=torch.device(model.device),
        max_positions=model.max_model_len,
        deterministic=model.deterministic,
        native=native,
        weight_dtype=dtype,
        keeps_packed=bool(model.packed_weights),
    )


def _native(model: ModelConfig) -> NativeEngine | None:
    """Threads and kernels of a CPU; None where torch computes. Its own threads would spin against them."""
    if model.device != "cpu":
        return None
    assert model.cpu_threads is not None, "the config is resolved"
    torch.set_num_threads(1 if model.native_kernels else model.cpu_threads)
    return native_engine(model.cpu_threads) if model.native_kernels else None
