"""Compiles kernels into Triton's cache on disk: no GPU is needed for that.

As a process: imports what the kernels need and says so with a line; reads tasks, one line of JSON each, to
the end; forks compilers that share the imports, for on some machines importing is the slowest part; says so
when all is done. It never touches a GPU and runs one thread only, so that forking is sound.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from octavo.ops.triton.cache_keys import settle_cache_keys


def compile_one(task: str) -> Any:
    """Does what the first call of the kernel would do, short of loading the result, which is returned."""
    what = json.loads(task)
    data = json.loads(what["data"])
    kernel: Any = getattr(importlib.import_module(what["module"]), what["name"])
    target = GPUTarget(**what["gpu"])
    source = ASTSource(
        kernel,
        {name: _as_tuple(kind) for name, kind in data["signature"].items()},
        dict(zip(map(tuple, data["constant_keys"]), map(_constant, data["constant_vals"]), strict=True)),
        dict(zip(map(tuple, data["attrs_keys"]), data["attrs_vals"], strict=True)),
    )
    wishes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data["options"].items()
    }
    options = make_backend(target).parse_options(wishes)
    return triton.compile(source, target=target, options=options.__dict__)


def _constant(value: Any) -> Any:
    """As it was before it became JSON."""
    if isinstance(value, str) and tl.dtype.is_dtype(value):
        return tl.dtype(value)
    if isinstance(value, dict) and "constexpr" in value:
        return tl.constexpr(value["constexpr"])
    return _as_tuple(value)


def _as_tuple(value: Any) -> Any:
    """No kernel takes lists: each was a tuple."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _compile(task: str) -> bool:
    try:
        kernel = compile_one(task)
    except Exception:
        return False  # the engine compiles it itself then, and meets the same error where it can be told
    with contextlib.suppress(Exception):
        # A small C module that launches it, a quarter of a second; it needs the driver's libraries.
        triton.runtime.driver.active.launcher_cls(kernel.src, kernel.metadata)
    return True


def main() -> None:
    settle_cache_keys()  # imports them all
    _say("ready")
    tasks = [line for line in sys.stdin.read().splitlines() if line]
    if tasks:
        num_processes = min(int(sys.argv[1]), len(tasks))
        with multiprocessing.get_context("fork").Pool(num_processes) as pool:
            compiled = pool.map(_compile, tasks, chunksize=1)
        _say(f"compiled {sum(compiled)} of {len(tasks)}")
    else:
        _say("nothing to compile")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (to who started us)


if __name__ == "__main__":
    main()
