"""What interpreted kernels need beyond Triton's own interpreter."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import pytest


@functools.cache
def mend_interpreter() -> None:
    """Let an interpreted loop run to a bound that a kernel has loaded, and products not depend on places.

    Triton keeps such a scalar as an array of one number, which NumPy 2.4 no longer takes for an int. And
    some of the BLAS kernels behind NumPy give a row other last bits in another place of a float32 matrix, as
    no GPU does; rounded from float64 they are the same.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patch_and_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_and_index
    _guard_memory(interpreter)
    interpreter.InterpreterBuilder.create_dot = functools.partialmethod(
        _dot, interpreter.InterpreterBuilder.create_dot
    )


def _dot(builder: Any, dot: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
    if {a.data.dtype.kind, b.data.dtype.kind, d.data.dtype.kind} != {"f"}:
        return dot(builder, a, b, d, *options)
    product = a.data.astype(np.float64) @ b.data.astype(np.float64)
    return type(d)(product.astype(d.data.dtype) + d.data, d.dtype.scalar)


def _guard_memory(interpreter: Any) -> None:
    """Let loads and stores outside of a kernel's tensors fail, as they do (sometimes) on a GPU."""
    executor, builder = interpreter.GridExecutor, interpreter.InterpreterBuilder
    place_arguments, load, store = (
        executor._init_args_hst,
        builder.create_masked_load,
        builder.create_masked_store,
    )
    bounds: list[tuple[int, int]] = []

    def note(self: Any, args: Any, kwargs: Any) -> Any:
        placed = place_arguments(self, args, kwargs)
        storages = [
            x.untyped_storage() for x in [*placed[0], *placed[1].values()] if hasattr(x, "untyped_storage")
        ]
        bounds[:] = sorted({(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in storages if s.nbytes()})
        return placed

    def check(ptrs: Any, mask: Any, what: str) -> None:
        used = np.broadcast_to(ptrs.data, mask.data.shape)[mask.data.astype(bool)].astype(np.uint64)
        if not used.size or not bounds:
            return
        starts = np.array([start for start, _ in bounds], dtype=np.uint64)
        ends = np.array([end for _, end in bounds], dtype=np.uint64)
        size = max(1, ptrs.get_element_ty().primitive_bitwidth // 8)
        place = np.searchsorted(starts, used, side="right").astype(np.int64) - 1
        is_outside = (place < 0) | (used + np.uint64(size) > ends[np.maximum(place, 0)])
        assert not is_outside.any(), f"{int(is_outside.sum())} of {used.size} values are {what} outside"

    def guarded_load(self: Any, ptrs: Any, mask: Any, *options: Any) -> Any:
        check(ptrs, mask, "read")
        return load(self, ptrs, mask, *options)

    def guarded_store(self: Any, ptrs: Any, value: Any, mask: Any, *options: Any) -> Any:
        check(ptrs, mask, "written")
        return store(self, ptrs, value, mask, *options)

    executor._init_args_hst = note
    builder.create_masked_load, builder.create_masked_store = guarded_load, guarded_store
