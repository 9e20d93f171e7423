"""Makes the names under which Triton keeps compiled kernels the same in every process.

Triton 3.6 to 3.9 hash a kernel's source and the constants it uses; those of a helper count only if the helper
was hashed before for another kernel. So the name depends on which kernel came first, and what one process
compiled another may not find. Hashing everything once, in one order, before any kernel is called settles it.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from triton.runtime.jit import JITFunction


@cache
def settle_cache_keys() -> None:
    """Hash all kernels and helpers of this folder. Helpers stand above their kernels."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package)
    for name in sorted(module.name for module in pkgutil.iter_modules(folder.__path__)):
        module = importlib.import_module(f"{package}.{name}")
        for value in list(vars(module).values()):
            if isinstance(value, JITFunction) and value.__module__ == module.__name__:
                value.cache_key  # noqa: B018  (computed when it is first read)
