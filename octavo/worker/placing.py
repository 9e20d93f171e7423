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
    """Threads and kernels of a CPU; None where torch computes, with its own number of threads unless another
    is asked for. Beside ours they would spin against these."""
    threads = model.cpu_threads
    if model.native_kernels:
        assert threads is not None, "the config is resolved"
        torch.set_num_threads(1)
        return native_engine(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    return None
