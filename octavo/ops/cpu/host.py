"""The native forms of what a step needs around the model; the plain ones where nothing was compiled.

T tokens, S rows of logits, V vocabulary, G KV groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from octavo.base.native import native_library
from octavo.ops.cpu.engine import declare
from octavo.ops.sampling.choose import choose_plain
from octavo.ops.sampling.settings import COLUMNS, Draws
from octavo.ops.step import append_tokens as append_tokens_op
from octavo.ops.step import gather_step as gather_step_op

_LIBRARY = native_library()
if _LIBRARY is not None:
    declare(_LIBRARY)


def choose_tokens(logits_SV: torch.Tensor, draws: Draws | None) -> torch.Tensor:
    """ops/sampling/choose.py. Probabilities differ from torch's in their last bits, draws hardly ever."""
    is_simple = logits_SV.dtype == torch.float32 and logits_SV.stride(1) == 1
    if _LIBRARY is None or not is_simple:
        return choose_plain(logits_SV, draws)
    num_rows, vocab_size = logits_SV.shape
    chosen_2S = torch.empty(2, num_rows, dtype=torch.int32)
    settings = rows_S = positions_S = None
    if draws is not None:
        settings, rows_S, positions_S = (
            draws.settings,
            draws.rows_S.contiguous(),
            draws.positions_S.contiguous(),
        )
        assert settings.is_contiguous() and settings.shape[1] == COLUMNS, "lines as the library reads them"
        assert rows_S.dtype == positions_S.dtype == settings.dtype == torch.int64, "64-bit words all"
    _LIBRARY.octavo_choose_tokens(
        logits_SV.data_ptr(),
        logits_SV.stride(0),
        num_rows,
        vocab_size,
        None if settings is None else settings.data_ptr(),
        None if rows_S is None else rows_S.data_ptr(),
        None if positions_S is None else positions_S.data_ptr(),
        chosen_2S.data_ptr(),
    )
    return chosen_2S


def gather_step(  # noqa: PLR0913
    memory_RW: torch.Tensor,
    rows_S: torch.Tensor,
    starts_S1: torch.Tensor,
    firsts_S: torch.Tensor,
    counts: torch.Tensor,
    table_columns: Sequence[int],
    block_size: int,
    token_ids_T: torch.Tensor,
    positions_T: torch.Tensor,
    slots_GT: torch.Tensor,
) -> None:
    """ops/step.py"""
    if _LIBRARY is None:
        gather_step_op.plain(
            memory_RW,
            rows_S,
            starts_S1,
            firsts_S,
            counts,
            table_columns,
            block_size,
            token_ids_T,
            positions_T,
            slots_GT,
        )
        return
    columns = np.array(table_columns, dtype=np.int64)
    _LIBRARY.octavo_gather_step(
        memory_RW.data_ptr(),
        memory_RW.stride(0),
        rows_S.data_ptr(),
        starts_S1.data_ptr(),
        firsts_S.data_ptr(),
        counts.data_ptr(),
        columns.ctypes.data,
        len(columns),
        block_size,
        len(token_ids_T),
        token_ids_T.data_ptr(),
        positions_T.data_ptr(),
        slots_GT.data_ptr(),
        slots_GT.stride(0),
    )


def append_tokens(
    memory_RW: torch.Tensor, rows_R: torch.Tensor, columns_R: torch.Tensor, token_ids_R: torch.Tensor
) -> None:
    """ops/step.py"""
    is_simple = rows_R.dtype == columns_R.dtype == torch.int32 and token_ids_R.stride(0) == 1
    if _LIBRARY is None or not is_simple or token_ids_R.dtype not in (torch.int32, torch.int64):
        append_tokens_op.plain(memory_RW, rows_R, columns_R, token_ids_R)
        return
    _LIBRARY.octavo_append_tokens(
        memory_RW.data_ptr(),
        memory_RW.stride(0),
        rows_R.data_ptr(),
        columns_R.data_ptr(),
        token_ids_R.data_ptr(),
        len(rows_R),
        token_ids_R.dtype == torch.int64,
    )
