"""Compiles one kernel after the other into Triton's cache on disk: no GPU is needed for that.

As a process: reads tasks, one line of JSON each, and answers each with a line.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend


def compile_one(task: str) -> None:
    """Does what the first call of the kernel would do, short of loading the result."""
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
    triton.compile(source, target=target, options=options.__dict__)


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


def main() -> None:
    for task in sys.stdin:
        try:
            compile_one(task)
            answer = "done"
        except Exception as error:
            # The engine compiles it itself then, and meets the same error where it can be told.
            answer = f"failed: {type(error).__name__}"
        print(answer, flush=True)  # noqa: T201  (the answer to who started us)


if __name__ == "__main__":
    main()
