"""StepBatch: the tensors of one step. T tokens, S sequences, R rows that sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.attention.step_view import StepView


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """One step, gathered. Lists are on the host and parallel; sequences stand in the StepView's order."""

    rows: list[int]
    num_tokens: list[int]
    first_positions: list[int]
    query_starts: list[int]
    rows_S: torch.Tensor
    num_tokens_S: torch.Tensor
    token_ids_T: torch.Tensor
    positions_T: torch.Tensor
    views: list[StepView]
    """One per KV group."""
    sample_rows: list[int]
    """Rows whose last known token is in this step: each gets one more."""
    sample_rows_R: torch.Tensor
    sample_tokens_R: torch.Tensor | None
    """Where their last tokens are among the T; None if every token is one, in order."""
