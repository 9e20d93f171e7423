"""Native products of plain numbers, one by one and in groups: any width, any number of tokens, one order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from octavo.base.native import native_kernels
from octavo.ops.cpu.engine import PLAIN_KINDS, NativeEngine, PackedMatrix, linear_struct
from octavo.ops.stored import StoredMatrix
from tests.ops.test_native_products import KERNELS, engine

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")

TOKENS = 203
"""More than two blocks of tokens, and a rest for every size of tile."""


def packed(native: NativeEngine, weight_OI: torch.Tensor) -> PackedMatrix:
    data = weight_OI.contiguous().view(torch.uint8).numpy()
    kind = PLAIN_KINDS[weight_OI.dtype]
    return native.pack(StoredMatrix(kind=kind, columns=weight_OI.shape[1], data=data))


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", PLAIN_KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (16, 33), (37, 512), (130, 1031)])
def test_sums_are_right_and_do_not_depend_on_other_tokens(
    kernels: str, dtype: torch.dtype, rows: int, columns: int
) -> None:
    native = engine(kernels)
    weight_OI, x_TI, bias_O = draw(rows, columns).to(dtype), draw(TOKENS, columns), draw(rows)
    matrix = packed(native, weight_OI)
    assert torch.equal(native.rows(matrix, torch.arange(rows)), weight_OI.float())
    y_TO = native.linear(x_TI, [matrix], bias_O)
    expected = (x_TI.double() @ weight_OI.double().t() + bias_O).float()
    torch.testing.assert_close(y_TO, expected, rtol=1e-5, atol=1e-5 * columns**0.5)
    for start, count in ((0, 1), (7, 2), (50, 3), (90, 12), (3, 96), (100, 103)):
        part = slice(start, start + count)
        assert torch.equal(native.linear(x_TI[part], [matrix], bias_O), y_TO[part])


@pytest.mark.parametrize("dtype", PLAIN_KINDS)
def test_a_narrow_number_counts_as_the_same_in_float32(dtype: torch.dtype) -> None:
    native = NativeEngine(1)
    weight_OI, x_TI = draw(40, 70).to(dtype), draw(5, 70)
    narrow, wide = packed(native, weight_OI), packed(native, weight_OI.float())
    assert torch.equal(native.linear(x_TI, [narrow], None), native.linear(x_TI, [wide], None))


@pytest.mark.parametrize("dtype", PLAIN_KINDS)
def test_numbers_that_are_none_are_noticed(dtype: torch.dtype) -> None:
    native = NativeEngine(1)
    weight_OI = draw(20, 50).to(dtype)
    assert packed(native, weight_OI).is_finite
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken_OI = weight_OI.clone()
        broken_OI[17, 49] = bad
        assert not packed(native, broken_OI).is_finite


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", ["float32", "Q8_0"])
def test_products_in_groups(kernels: str, kind: str) -> None:
    """As one product for each, whose rows begin where those of the one before end."""
    native = engine(kernels)
    sizes, rows, columns = [3, 1, 40, 7], 21, 64
    x_PI, biases_XO = draw(sum(sizes), columns), draw(len(sizes), 2 * rows)

    def matrix(seed: int) -> PackedMatrix:
        if kind == "float32":
            return packed(native, draw(rows, columns) + seed)
        blocks = np.random.default_rng(seed).integers(0, 60, (rows, columns // 32 * 34), dtype=np.uint8)
        return native.pack(StoredMatrix(kind=kind, columns=columns, data=blocks))

    parts = [[matrix(2 * i), matrix(2 * i + 1)] for i in range(len(sizes))]
    linears = [linear_struct(part, bias_O) for part, bias_O in zip(parts, biases_XO, strict=True)]
    ends = np.cumsum(sizes).tolist()
    y_PO = native.grouped(linears, ends, x_PI)
    for part, bias_O, size, end in zip(parts, biases_XO, sizes, ends, strict=True):
        assert torch.equal(y_PO[end - size : end], native.linear(x_PI[end - size : end], part, bias_O))


def test_a_forked_process_computes_and_ends() -> None:
    """Its threads stay behind: the caller does all of the work, and waits for nobody when it exits."""
    code = """
import os, signal, sys, torch
from tests.ops.test_native_plain import draw, packed
from octavo.ops.cpu.engine import NativeEngine

native = NativeEngine(2)
matrix, x = packed(native, draw(40, 70)), draw(5, 70)
y = native.linear(x, [matrix], None)
child = os.fork()
if not child:
    signal.alarm(60)
    sys.exit(not torch.equal(native.linear(x, [matrix], None), y))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_process_may_end_while_a_thread_computes() -> None:
    """As a script does that is interrupted. It ended with a fault every second time."""
    code = """
import ctypes, threading, time, torch
from octavo.base.native import native_library
from octavo.ops.cpu.engine import NativeEngine
from tests.ops.test_native_products import stored

native = NativeEngine(2)
matrix, x, y = native.pack(stored("Q8_0", 512, 4096)[0]), torch.randn(3000, 4096), torch.empty(3000, 512)
arguments = native.handle, ctypes.byref(matrix.struct), 1, x.data_ptr(), 3000, y.data_ptr(), 512, None, 0

def compute():
    while True:
        native_library().octavo_linear(*arguments)

threading.Thread(target=compute, daemon=True).start()
time.sleep(0.2)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
