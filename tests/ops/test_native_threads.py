"""Threads that the system does not let start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.base.native import native_kernels
from tests.ops.native_build import built

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")

SHIM = """
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
static int left = -1;
extern "C" void let_start(int count) { left = count; }
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*run)(void*), void* with) {
    using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static Create create = (Create)dlsym(RTLD_NEXT, "pthread_create");
    if (left == 0) return EAGAIN;
    if (left > 0) --left;
    return create(thread, how, run, with);
}
"""
CHILD = """
import ctypes, logging, torch
from octavo.ops.cpu.engine import NativeEngine
from octavo.ops.stored import StoredMatrix
logging.basicConfig()
def product(engine):
    weights = torch.arange(64.0 * 256).view(64, 256) / 1000
    matrix = StoredMatrix(kind="F32", columns=256, data=weights.view(torch.uint8).numpy())
    return engine.linear(torch.ones(3, 256), [engine.pack(matrix)], None)
expected = product(NativeEngine(8))
for count in (2, 0):
    ctypes.CDLL(None).let_start(count)
    engine = NativeEngine(8)
    assert engine.num_threads == count + 1, engine.num_threads
    assert torch.equal(product(engine), expected)
    del engine
"""


def test_those_that_start_do_the_work(tmp_path: Path) -> None:
    source = tmp_path / "shim.cpp"
    source.write_text(SHIM)
    shim = built(tmp_path / "shim.so", "-shared", "-fPIC", source, "-ldl")
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    assert "let 3 of 8 threads start" in child.stderr and "let 1 of 8 threads start" in child.stderr
