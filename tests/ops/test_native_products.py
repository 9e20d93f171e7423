"""Products of packed weights: every type on every instruction set here, against plain numbers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from octavo.base.native import native_kernels, native_library
from octavo.ops.cpu.engine import TYPES, NativeEngine
from octavo.ops.stored import StoredMatrix
from octavo.weights.footprint import PACKED_BITS, PLAIN_BITS, _num_filled_up
from octavo.weights.gguf.dequant import BLOCK_TYPES, dequantize

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")

KERNELS = ("portable", "neon", "avx2", "avxvnni", "avx512", "avx512vnni", "amx")
BY_NAME = {kind.name: kind for kind in BLOCK_TYPES.values()}
PLAIN = ("F32", "F16", "BF16")
HALVES = {
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    **dict.fromkeys(("IQ1_M", "MXFP4"), ()),
}
"""Where blocks hold numbers in half precision; elsewhere at their beginning."""
HALF = 2.0**-11
"""Relative error of a scale that is kept in half precision."""


def put_halves(blocks: np.ndarray, at: int, numbers: np.ndarray) -> None:
    blocks[:, at : at + 2] = numbers.astype(np.float16).view(np.uint8).reshape(-1, 2)


def scatter_halves(blocks: np.ndarray, numbers: np.ndarray) -> None:
    """As IQ1_M has them: four bits in the high halves of bytes 49, 51, 53 and 55."""
    bits = numbers.astype(np.float16).view(np.uint16)
    for index, at in enumerate((49, 51, 53, 55)):
        blocks[:, at] = blocks[:, at] & 15 | (bits >> (4 * index) & 15) << 4


def stored(
    name: str, rows: int, columns: int, seed: int = 0, scale: float | None = None
) -> tuple[StoredMatrix, torch.Tensor]:
    """Random blocks of a type with scales around 0.01 or this one, and what they mean."""
    kind, rng = BY_NAME[name], np.random.default_rng(seed)
    count = rows * columns // kind.block_size
    if name in PLAIN:
        numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[name]
        data = numbers.to(dtype).view(torch.uint8).numpy()
        return StoredMatrix(kind=name, columns=columns, data=data), numbers.to(dtype).float()
    blocks = rng.integers(0, 256, (count, kind.block_bytes), dtype=np.uint8)
    for at in HALVES.get(name, (0,)):
        put_halves(blocks, at, rng.uniform(-0.01, 0.01, count) if scale is None else np.full(count, scale))
    if name == "IQ1_M":
        scatter_halves(blocks, rng.uniform(-0.01, 0.01, count) if scale is None else np.full(count, scale))
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(108, 122, count)  # powers of two that halves hold
    weights = np.empty(rows * columns, dtype=np.float32)
    dequantize(blocks, kind, weights)
    data = blocks.reshape(rows, -1)
    return StoredMatrix(kind=name, columns=columns, data=data), torch.from_numpy(weights).view(rows, columns)


def rounded(x_TI: torch.Tensor) -> torch.Tensor:
    """Inputs as the kernels see them: 8 bits with a scale for every 32."""
    blocks = x_TI.reshape(len(x_TI), -1, 32)
    scales = blocks.abs().amax(-1, keepdim=True) / 127
    return ((blocks / scales).nan_to_num().round() * scales).reshape(x_TI.shape)


@cache
def engine(kernels: str) -> NativeEngine:
    library = native_library()
    assert library is not None
    if library.octavo_kernels(kernels.encode()) is None:
        pytest.skip(f"this processor (or build) has no {kernels}")
    return NativeEngine(2, kernels)


@pytest.mark.parametrize("name", TYPES)
def test_rows_are_what_the_format_says(name: str) -> None:
    native = NativeEngine(1)
    matrix, weights_OI = stored(name, 37, 512)
    packed = native.pack(matrix)
    assert packed.is_finite
    rows = native.rows(packed, torch.tensor([36, 0, 5, 5]))
    expected = weights_OI[[36, 0, 5, 5]]
    if BY_NAME[name].block_size == 256:
        # Products of two scales are rounded to half precision once more.
        torch.testing.assert_close(rows, expected, rtol=0, atol=2 * HALF * float(expected.abs().max()))
    else:
        assert torch.equal(rows, expected)


@pytest.mark.parametrize("name", [kind.name for kind in BLOCK_TYPES.values() if kind.block_size == 256])
def test_nothing_is_lost_where_halves_hold_the_products_of_scales(name: str) -> None:
    native = NativeEngine(1)
    matrix, weights_OI = stored(name, 37, 512, scale=-(2.0**-6))
    assert torch.equal(native.rows(native.pack(matrix), torch.arange(37)), weights_OI)


def test_every_type_that_files_may_have_is_packed_in_the_bits_that_are_planned() -> None:
    native = NativeEngine(1)
    assert set(TYPES) == set(BY_NAME)
    for name in TYPES:
        packed = native.pack(stored(name, 32, 512)[0])
        assert packed.packed.nbytes * 8 == 32 * 512 * {**PACKED_BITS, **PLAIN_BITS}[name], name


@pytest.mark.parametrize(
    "name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"]
)
def test_products_of_scales_that_no_half_can_hold_are_told(name: str) -> None:
    """Finite in the file's arithmetic, infinite in ours: such a matrix is not taken."""
    matrix, _ = stored(name, 1, 256)
    data = np.full_like(matrix.data, 0xFF)
    for at in HALVES.get(name, (0,)):
        put_halves(data, at, np.array([60000.0]))
    if name == "Q6_K":
        data[:, 192:208] = 127
    assert not NativeEngine(1).pack(StoredMatrix(kind=name, columns=256, data=data)).is_finite


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", TYPES)
def test_products(kernels: str, name: str) -> None:
    native = engine(kernels)
    columns = max(96, BY_NAME[name].block_size)
    for rows in (1, 16, 51):
        matrix, _ = stored(name, rows, columns, seed=rows)
        packed = native.pack(matrix)
        weights_OI = native.rows(packed, torch.arange(rows))
        x_TI = torch.randn(21, columns, generator=torch.Generator().manual_seed(rows))
        x_TI[3] = 0
        inputs = x_TI if name in PLAIN else rounded(x_TI)
        expected = (inputs.double() @ weights_OI.double().t()).float()
        y_TO = native.linear(x_TI, [packed], None)
        torch.testing.assert_close(y_TO, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        for token in range(21):
            assert torch.equal(native.linear(x_TI[token : token + 1], [packed], None)[0], y_TO[token])


@pytest.mark.parametrize("kernels", KERNELS)
def test_several_matrices_and_a_bias(kernels: str) -> None:
    native = engine(kernels)
    parts = [
        native.pack(stored(name, rows, 64)[0]) for name, rows in (("Q4_1", 40), ("Q8_0", 7), ("F16", 17))
    ]
    x_TI, bias_O = torch.randn(3, 64), torch.randn(64)
    y_TO = native.linear(x_TI, parts, bias_O)
    apart = [native.linear(x_TI, [part], None) for part in parts]
    torch.testing.assert_close(y_TO, torch.cat(apart, 1) + bias_O)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_widest_numbers_do_not_overflow(kernels: str) -> None:
    native = engine(kernels)
    for name in (name for name in TYPES if name not in PLAIN):
        kind = BY_NAME[name]
        for byte in (0x00, 0x80, 0xFF):
            blocks = np.full((16 * 256 // kind.block_size, kind.block_bytes), byte, dtype=np.uint8)
            for at in HALVES.get(name, (0,)):
                put_halves(blocks, at, np.ones(len(blocks)))
            if name == "IQ1_M":
                scatter_halves(blocks, np.ones(len(blocks)))
            if name == "MXFP4":
                blocks[:, 0] = 128
            packed = native.pack(StoredMatrix(kind=name, columns=256, data=blocks.reshape(16, -1)))
            for sign in (-1.0, 1.0):
                x_TI = torch.full((1, 256), sign * 127.0)
                expected = x_TI @ native.rows(packed, torch.arange(16)).t()
                torch.testing.assert_close(native.linear(x_TI, [packed], None), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_input_that_is_no_number_shows_in_its_row_only(kernels: str, bad: float) -> None:
    native = engine(kernels)
    packed = native.pack(stored("Q4_1", 20, 64)[0])
    x_TI = torch.randn(5, 64)
    fine = native.linear(x_TI, [packed], None)
    x_TI[2, 40] = bad
    y_TO = native.linear(x_TI, [packed], None)
    assert not torch.isfinite(y_TO[2]).any()
    assert torch.equal(y_TO[[0, 1, 3, 4]], fine[[0, 1, 3, 4]])


def test_many_jobs_from_many_threads() -> None:
    """Late, early and absent threads: every result is complete when the call returns."""
    from concurrent.futures import ThreadPoolExecutor

    native = NativeEngine(3)
    packed = native.pack(stored("Q8_0", 64, 64)[0])
    x_TI = torch.randn(9, 64)
    expected = native.linear(x_TI, [packed], None)
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda _: native.linear(x_TI, [packed], None), range(2000))
        assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize(("rows", "columns"), [(32, 256), (33, 256), (1, 512), (50257, 256)])
def test_what_a_plan_counts_is_what_a_matrix_takes(rows: int, columns: int) -> None:
    library = NativeEngine(1)._library
    for name, bits in {**PACKED_BITS, **PLAIN_BITS}.items():
        taken = library.octavo_packed_bytes(library.octavo_form(TYPES[name]), rows, columns)
        assert taken == _num_filled_up((rows, columns)) * bits / 8, name
