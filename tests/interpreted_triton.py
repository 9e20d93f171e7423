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
    interpreter.InterpreterBuilder.create_dot = functools.partialmethod(
        _dot, interpreter.InterpreterBuilder.create_dot
    )


def _dot(builder: Any, dot: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
    if {a.data.dtype.kind, b.data.dtype.kind, d.data.dtype.kind} != {"f"}:
        return dot(builder, a, b, d, *options)
    product = a.data.astype(np.float64) @ b.data.astype(np.float64)
    return type(d)(product.astype(d.data.dtype) + d.data, d.dtype.scalar)
