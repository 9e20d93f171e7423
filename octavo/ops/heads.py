"""What happens to a layer's projections before they attend: norm, rotation, keys and values to their pages.

T tokens, H query heads, K KV heads, D head width, O = (H + 2 K) * D, P positions, R rotated width (at most
D), B blocks, N tokens per block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op
from octavo.ops.norm import rms_norm, rms_norm_cpu


def _plain(  # noqa: PLR0913
    qkv_TO: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    rotation_PR: torch.Tensor | None,
    q_norm_D: torch.Tensor | None,
    k_norm_D: torch.Tensor | None,
    epsilon: float,
    keys_BKND: torch.Tensor,
    values_BKND: torch.Tensor,
    num_heads: int,
) -> None:
    """Norm and rotate queries and keys in place; write keys and values into the pages, of any strides.

    Row p of rotation_PR (float32) holds R / 2 cosines, then R / 2 sines. The first R values of a head are
    rotated, half against half; the rest stays. A slot is block * N + offset, negative: not written.
    """
    q_THD, k_TKD, v_TKD = _heads(qkv_TO, num_heads, keys_BKND)
    for heads, norm_D in ((q_THD, q_norm_D), (k_TKD, k_norm_D)):
        if norm_D is not None:
            heads.copy_(rms_norm.plain(heads, norm_D, epsilon))
        if rotation_PR is not None:
            turn_heads(heads, rotation_PR, positions_T)
    _write(keys_BKND, slots_T, k_TKD)
    _write(values_BKND, slots_T, v_TKD)


def turn_heads(heads: torch.Tensor, rotation_PR: torch.Tensor, positions_T: torch.Tensor) -> None:
    """Rotate the first R columns of heads [T, any number, at least R] in place."""
    turned = heads[..., : rotation_PR.shape[1]]
    cos_T1, sin_T1 = rotation_PR[positions_T.long(), None].chunk(2, -1)
    first, second = turned.float().chunk(2, -1)
    turned.copy_(torch.cat((first * cos_T1 - second * sin_T1, second * cos_T1 + first * sin_T1), -1))


def _heads(
    qkv_TO: torch.Tensor, num_heads: int, pages_BKND: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of the queries, keys and values."""
    num_kv_heads, _, head_dim = pages_BKND.shape[1:]
    heads_T = qkv_TO.view(len(qkv_TO), -1, head_dim)
    first_value = num_heads + num_kv_heads
    return heads_T[:, :num_heads], heads_T[:, num_heads:first_value], heads_T[:, first_value:]


def _write(pages_BKND: torch.Tensor, slots_T: torch.Tensor, heads_TKD: torch.Tensor) -> None:
    is_kept_T = slots_T >= 0
    slots = slots_T[is_kept_T].long()
    block_size = pages_BKND.shape[2]
    pages_BKND[slots // block_size, :, slots % block_size] = heads_TKD[is_kept_T]


class _Angles(NamedTuple):
    """The rotations of one step."""

    rotation_PR: torch.Tensor
    positions_T: torch.Tensor
    cos_T1R: torch.Tensor
    sin_T1R: torch.Tensor
    """Negative in the first half."""


class _Rows(NamedTuple):
    """Where one step's keys and values go in pages seen as rows [rows, K * D]."""

    slots_T: torch.Tensor
    layout: tuple[int, int]
    """Tokens per block, rows per block."""
    rows_T: torch.Tensor | None
    """None: some are not written."""


class CpuTurn:
    """Rotates heads in place, without a concatenated copy (benchmarks/ops_cpu.py).

    All layers of a step turn by the same angles, so the last ones looked up are kept: comparing a step's
    numbers takes 1 us, looking angles up 20.
    """

    def __init__(self) -> None:
        self._angles: _Angles | None = None

    def __call__(self, heads: torch.Tensor, rotation_PR: torch.Tensor, positions_T: torch.Tensor) -> None:
        """The first R columns of heads [T, any number, at least R]."""
        # Read once and replaced as a whole: another engine's thread may do the same.
        last = self._angles
        if last is None or last.rotation_PR is not rotation_PR or not _is_same(last.positions_T, positions_T):
            cos_T1, sin_T1 = rotation_PR.index_select(0, positions_T)[:, None].chunk(2, -1)
            last = _Angles(
                rotation_PR,
                positions_T.clone(),
                torch.cat((cos_T1, cos_T1), -1),
                torch.cat((-sin_T1, sin_T1), -1),
            )
            self._angles = last
        _turn(heads, last)


class CpuHeads:
    """Writes whole rows; where they go is kept as the angles are."""

    def __init__(self) -> None:
        self._turn = CpuTurn()
        self._rows: _Rows | None = None

    def __call__(  # noqa: PLR0913
        self,
        qkv_TO: torch.Tensor,
        positions_T: torch.Tensor,
        slots_T: torch.Tensor,
        rotation_PR: torch.Tensor | None,
        q_norm_D: torch.Tensor | None,
        k_norm_D: torch.Tensor | None,
        epsilon: float,
        keys_BKND: torch.Tensor,
        values_BKND: torch.Tensor,
        num_heads: int,
    ) -> None:
        num_kv_heads, _, head_dim = keys_BKND.shape[1:]
        first_value = num_heads + num_kv_heads
        heads_T = qkv_TO.view(len(qkv_TO), -1, head_dim)
        if q_norm_D is not None:
            q_THD = heads_T[:, :num_heads]
            q_THD.copy_(rms_norm_cpu(q_THD, q_norm_D, epsilon))
        if k_norm_D is not None:
            k_TKD = heads_T[:, num_heads:first_value]
            k_TKD.copy_(rms_norm_cpu(k_TKD, k_norm_D, epsilon))
        if rotation_PR is not None:
            self._turn(heads_T[:, :first_value], rotation_PR, positions_T)
        rows_T = self._look_up_rows(slots_T, keys_BKND, values_BKND)
        if rows_T is None:
            _write(keys_BKND, slots_T, heads_T[:, num_heads:first_value])
            _write(values_BKND, slots_T, heads_T[:, first_value:])
        else:
            end = first_value * head_dim
            width = num_kv_heads * head_dim
            _rows_of(keys_BKND, width).index_copy_(0, rows_T, qkv_TO[:, end - width : end])
            _rows_of(values_BKND, width).index_copy_(0, rows_T, qkv_TO[:, end:])

    def _look_up_rows(
        self, slots_T: torch.Tensor, keys_BKND: torch.Tensor, values_BKND: torch.Tensor
    ) -> torch.Tensor | None:
        """None: there is no such thing, in these pages or for these slots."""
        num_kv_heads, block_size, head_dim = keys_BKND.shape[1:]
        width = num_kv_heads * head_dim
        strides = keys_BKND.stride()
        rows_per_block, odd = divmod(strides[0], width)
        if odd or strides[1:] != (head_dim, width, 1) or strides != values_BKND.stride():
            return None
        layout = block_size, rows_per_block
        last = self._rows
        if last is None or last.layout != layout or not _is_same(last.slots_T, slots_T):
            rows_T = None
            if slots_T.min() >= 0:
                blocks_T = (slots_T // block_size).long()
                rows_T = slots_T + blocks_T * (rows_per_block - block_size)
            last = _Rows(slots_T.clone(), layout, rows_T)
            self._rows = last
        return last.rows_T


def _is_same(last_T: torch.Tensor, now_T: torch.Tensor) -> bool:
    return last_T.dtype == now_T.dtype and torch.equal(last_T, now_T)


def _rows_of(pages_BKND: torch.Tensor, width: int) -> torch.Tensor:
    """The same memory as rows [rows, K * D], from the first token's to the last one's."""
    num_rows = pages_BKND.stride(0) // width * (len(pages_BKND) - 1) + pages_BKND.shape[2]
    return pages_BKND.as_strided((num_rows, width), (width, 1))


def _turn(heads: torch.Tensor, angles: _Angles) -> None:
    width = angles.cos_T1R.shape[-1]
    turned = heads if width == heads.shape[-1] else heads[..., :width]
    exact = turned.float()
    swapped = exact.roll(width // 2, -1)
    exact.mul_(angles.cos_T1R).addcmul_(swapped, angles.sin_T1R)
    if exact is not turned:
        turned.copy_(exact)


prepare_heads_cpu = CpuHeads()


def _examples() -> Iterator[tuple[Any, ...]]:
    """Grouped heads, partial and no rotation, norms, both page layouts, padding, odd sizes of everything."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def example(
        tokens: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        block_size: int,
        *,
        rotated: int,
        has_norms: bool,
        is_head_major: bool,
        dtype: torch.dtype,
    ) -> tuple[Any, ...]:
        num_blocks = 2 + tokens // block_size
        order = (0, 1, 2, 3) if is_head_major else (0, 2, 1, 3)
        sizes = (num_kv_heads, block_size) if is_head_major else (block_size, num_kv_heads)
        page_array = draw(num_blocks, 2, *sizes, head_dim)
        slots_T = torch.randperm(num_blocks * block_size, generator=generator)[:tokens]
        slots_T[1::3] = -1
        return (
            draw(tokens, (num_heads + 2 * num_kv_heads) * head_dim),
            torch.randint(0, 50, (tokens,), generator=generator).to(dtype),
            slots_T.to(dtype),
            draw(50, rotated) if rotated else None,
            draw(head_dim) if has_norms else None,
            draw(head_dim) if has_norms else None,
            1e-6,
            page_array[:, 0].permute(order),
            page_array[:, 1].permute(order),
            num_heads,
        )

    int32, int64 = torch.int32, torch.int64
    yield example(1, 4, 2, 8, 4, rotated=8, has_norms=False, is_head_major=True, dtype=int32)
    yield example(1, 9, 3, 64, 16, rotated=64, has_norms=False, is_head_major=False, dtype=int64)
    yield example(5, 9, 1, 12, 1, rotated=12, has_norms=True, is_head_major=True, dtype=int32)
    yield example(7, 3, 3, 20, 2, rotated=8, has_norms=True, is_head_major=False, dtype=int64)
    yield example(3, 17, 9, 16, 16, rotated=4, has_norms=False, is_head_major=True, dtype=int32)
    yield example(2, 2, 1, 6, 8, rotated=0, has_norms=False, is_head_major=False, dtype=int32)


prepare_heads = Op(
    name="prepare_heads",
    plain=_plain,
    providers=LazyTable(
        "prepare_heads provider",
        {"cpu": "octavo.ops.heads:prepare_heads_cpu", "cuda": "octavo.ops.triton.heads:prepare_heads"},
    ),
    examples=_examples,
    tolerance=1e-5,
    writes=(0, 7, 8),
    float32_arguments=(3,),
)
