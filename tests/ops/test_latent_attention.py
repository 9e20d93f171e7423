"""Decode and chunks over latent rows, interpreted, against plain attention in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from octavo.ops.head_product import head_product
from octavo.ops.triton import latent_states
from octavo.ops.triton.latent_states import LatentTile, fitting, head_blocks
from tests.latent_case import LatentCase

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are native here: tests/gpu tests those"),
    # Rows that only fill up a tile divide nothing by nothing.
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide"),
]
SMALL = LatentTile(rows=16, keys=16, num_warps=4, num_stages=2)
MIXED = [(0, 1), (6, 1), (9, 9), (22, 3), (0, 17)]
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_heads": 3, "block_size": 1},
    {"num_heads": 1, "latent": 32, "rotated": 16, "block_size": 16},
    {
        "num_heads": 17,
        "rotated": 2,
        "block_size": 8,
        "tile": LatentTile(rows=32, keys=16, num_warps=4, num_stages=1),
    },
    {"dtype": torch.float16},
]


def small(sequences: list[tuple[int, int]], **shape: Any) -> LatentCase:
    return LatentCase(sequences, **{"tile": SMALL, "num_sms": 2, **shape})


def tolerance(case: LatentCase) -> float:
    return 2e-3 if case.dtype == torch.float16 else 1e-5


@pytest.mark.parametrize("num_splits", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode(shape: dict[str, Any], num_splits: int) -> None:
    case = small([(0, 1), (15, 1), (60, 1)], **shape)
    case.decode(num_splits=num_splits)
    case.check(slice(None), tolerance(case))


def test_heads_beyond_a_load_of_rows() -> None:
    """Also with the splits that the kernel chooses itself."""
    case = LatentCase([(3, 1), (90, 1)], num_heads=130, num_sms=8, tile=None)
    assert head_blocks(130) == 5
    case.decode()
    case.check(slice(None))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chunks(shape: dict[str, Any]) -> None:
    case = small(MIXED, **shape)
    case.chunks()
    case.check(slice(2, None), tolerance(case))


def test_decode_leaves_chunks_alone() -> None:
    case = small(MIXED)
    case.decode(num_splits=2)
    case.check(slice(0, 2))


def test_one_kernel_gives_the_same_bits_in_any_company() -> None:
    """Alone and in a crowd, in one chunk or in several.

    In float16, whose matrices the interpreter multiplies row by row.
    """
    crowd = small(MIXED, dtype=torch.float16)
    crowd.chunks(singles_too=True)
    crowd.check(slice(None), tolerance(crowd))
    for i, (before, now) in enumerate(MIXED):
        for done in range(0, now, 2):
            part = slice(crowd.starts[i] + done, crowd.starts[i] + min(done + 2, now))
            alone = small([(before + done, part.stop - part.start)], dtype=torch.float16)
            alone.pages_BNW, alone.table_RM = crowd.pages_BNW, crowd.table_RM
            alone.rows_S = crowd.rows_S[i : i + 1]
            alone.q_THC, alone.q_THR = crowd.q_THC[part], crowd.q_THR[part]
            alone.chunks(singles_too=True)
            assert torch.equal(alone.out_THC, crowd.out_THC[part])


def test_fixed_splits_depend_on_a_sequence_alone() -> None:
    crowd = small([(2, 1), (39, 1), (89, 1)])
    crowd.decode(num_splits=4, split_tokens=32)
    for i, sequence in enumerate(crowd.sequences):
        alone = small([sequence])
        alone.pages_BNW, alone.table_RM = crowd.pages_BNW, crowd.table_RM
        alone.rows_S = crowd.rows_S[i : i + 2]
        alone.q_THC, alone.q_THR = crowd.q_THC[i : i + 1], crowd.q_THR[i : i + 1]
        alone.decode(num_splits=4, split_tokens=32)
        assert torch.equal(alone.out_THC[0], crowd.out_THC[i])


def test_heads_are_cut_into_equal_parts() -> None:
    assert [head_blocks(n) for n in (1, 16, 64, 65, 96, 128)] == [1, 1, 1, 5, 2, 2]


@pytest.mark.parametrize(
    ("shared_kb", "tile"),
    [(227, (64, 64, 2)), (163, (64, 32, 2)), (99, (16, 32, 2)), (64, (16, 16, 2))],
)
def test_tiles_fit_into_smaller_gpus(
    shared_kb: int, tile: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H100, A100 and L40; at last as small as heads allow."""
    monkeypatch.setattr(latent_states, "_shared_memory", lambda device: shared_kb * 1024)
    wide = LatentTile(rows=64, keys=64, num_warps=8, num_stages=2)
    found = fitting(wide, 1152, torch.device("cpu"), fewest_rows=16)
    assert (found.rows, found.keys, found.num_stages) == tile
    assert fitting(wide, 1152, torch.device("cpu"), fewest_rows=64).rows == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_matrix_for_each_head(dtype: torch.dtype) -> None:
    multiply = head_product.providers.load("cuda")
    for x_THI, weight_HOI in head_product.examples():
        found = multiply(x_THI.to(dtype), weight_HOI.to(dtype))
        expected = torch.einsum("thi,hoi->tho", x_THI, weight_HOI)
        close = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(found.float(), expected, atol=close, rtol=close)
        torch.testing.assert_close(head_product.plain(x_THI, weight_HOI), expected, atol=1e-4, rtol=1e-4)
