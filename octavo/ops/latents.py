"""What happens to latent attention's projections before they attend: norm, rotation, rows to their pages.

A token's row is its latent, from which every head's key and value are made, then the part of its key that
is rotated and that all heads share (DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1).

T tokens, H query heads, C width of the latent, R rotated width, W = C + R, P positions, B blocks,
N tokens per block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op
from octavo.ops.heads import CpuTurn, turn_heads
from octavo.ops.norm import rms_norm, rms_norm_cpu


def _plain(
    q_THR: torch.Tensor,
    rows_TW: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    rotation_PR: torch.Tensor,
    norm_C: torch.Tensor,
    epsilon: float,
    pages_BNW: torch.Tensor,
) -> None:
    """Rotate queries and rows and norm the latents in place; write the rows to their pages, of any strides.

    Rotation and slots as in `prepare_heads`. q_THR are the rotated columns of the queries, of any strides
    but the last.
    """
    latents_TC = rows_TW[:, : len(norm_C)]
    latents_TC.copy_(rms_norm.plain(latents_TC, norm_C, epsilon))
    turn_heads(q_THR, rotation_PR, positions_T)
    turn_heads(rows_TW[:, None, len(norm_C) :], rotation_PR, positions_T)
    _write(pages_BNW, slots_T, rows_TW)


def _write(pages_BNW: torch.Tensor, slots_T: torch.Tensor, rows_TW: torch.Tensor) -> None:
    is_kept_T = slots_T >= 0
    slots = slots_T[is_kept_T].long()
    block_size = pages_BNW.shape[1]
    pages_BNW[slots // block_size, slots % block_size] = rows_TW[is_kept_T]


class CpuLatents:
    """Angles are looked up once for all layers of a step."""

    def __init__(self) -> None:
        self._turn = CpuTurn()

    def __call__(
        self,
        q_THR: torch.Tensor,
        rows_TW: torch.Tensor,
        positions_T: torch.Tensor,
        slots_T: torch.Tensor,
        rotation_PR: torch.Tensor,
        norm_C: torch.Tensor,
        epsilon: float,
        pages_BNW: torch.Tensor,
    ) -> None:
        latents_TC = rows_TW[:, : len(norm_C)]
        latents_TC.copy_(rms_norm_cpu(latents_TC, norm_C, epsilon))
        self._turn(q_THR, rotation_PR, positions_T)
        self._turn(rows_TW[:, None, len(norm_C) :], rotation_PR, positions_T)
        _write(pages_BNW, slots_T, rows_TW)


prepare_latents_cpu = CpuLatents()


def _examples() -> Iterator[tuple[Any, ...]]:
    """Odd widths and numbers of heads, blocks of one token, padding, one token and several."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def example(
        tokens: int, heads: int, nope: int, latent: int, rotated: int, block_size: int, dtype: torch.dtype
    ) -> tuple[Any, ...]:
        num_blocks = 2 + tokens // block_size
        slots_T = torch.randperm(num_blocks * block_size, generator=generator)[:tokens]
        slots_T[1::3] = -1
        qkv_TO = draw(tokens, heads * (nope + rotated) + latent + rotated)
        q_THD = qkv_TO[:, : heads * (nope + rotated)].view(tokens, heads, -1)
        return (
            q_THD[..., nope:],
            qkv_TO[:, heads * (nope + rotated) :],
            torch.randint(0, 50, (tokens,), generator=generator).to(dtype),
            slots_T.to(dtype),
            draw(50, rotated),
            draw(latent),
            1e-6,
            draw(num_blocks, block_size, latent + rotated),
        )

    int32, int64 = torch.int32, torch.int64
    yield example(1, 4, 8, 16, 4, 4, int32)
    yield example(5, 9, 12, 20, 6, 1, int64)
    yield example(7, 17, 4, 36, 8, 16, int32)
    yield example(2, 1, 6, 3, 2, 8, int32)


prepare_latents = Op(
    name="prepare_latents",
    plain=_plain,
    providers=LazyTable(
        "prepare_latents provider",
        {
            "cpu": "octavo.ops.latents:prepare_latents_cpu",
            "cuda": "octavo.ops.triton.latents:prepare_latents",
        },
    ),
    examples=_examples,
    tolerance=1e-5,
    writes=(0, 1, 7),
    float32_arguments=(4,),
)
