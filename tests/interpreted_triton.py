"""What interpreted kernels need beyond Triton's own interpreter."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest


@functools.cache
def mend_interpreter() -> None:
    """Let an interpreted loop run to a bound that a kernel has loaded.

    Triton keeps such a scalar as an array of one number, which NumPy 2.4 no longer takes for an int.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patch_and_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_and_index
