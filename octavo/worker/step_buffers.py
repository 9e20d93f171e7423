"""StepBuffers: a step's numbers on the device, always in the same memory, so that captured graphs find them.

One transfer carries all that the host decided; one kernel makes positions, tokens and slots of it.
T tokens, S sequences, R rows that sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from octavo.attention.step_view import HostView, StepView
from octavo.base.integers import ceil_div
from octavo.ops.step import gather_step
from octavo.ops.step_rows import StepRows
from octavo.worker.rows import TokenRows
from octavo.worker.step_batch import StepBatch

NUM_COUNTS = 8
"""Room for StepView.counts, with some to spare."""


class StepBounds(NamedTuple):
    """A step's size, or while a graph is captured the most that a replay may bring (see StepView)."""

    num_tokens: int
    num_seqs: int
    num_singles: int
    has_chunks: bool
    shares_prefix: bool

    @classmethod
    def of(cls, batch: StepBatch) -> StepBounds:
        num_seqs, num_singles = len(batch.rows), batch.num_singles
        return cls(
            num_tokens=batch.total_tokens,
            num_seqs=num_seqs,
            num_singles=num_singles,
            has_chunks=num_singles < num_seqs,
            shares_prefix=batch.num_shared_blocks > 0,
        )


class StepBuffers:
    """For steps of at most `max_seqs` sequences and `max_tokens` tokens."""

    def __init__(self, rows: TokenRows, *, max_seqs: int, max_tokens: int) -> None:
        self._rows = rows
        self._device = rows.device
        sizes = [NUM_COUNTS, max_seqs, max_seqs + 1, *[max_seqs] * 5]
        self._ints = torch.zeros(sum(sizes), dtype=torch.int32, device=self._device)
        parts = torch.split(self._ints, sizes)
        self.counts, self.rows_S, self.starts_S1, self.firsts_S, self.lengths_S = parts[:5]
        self.sample_rows_R, self.sample_columns_R, self.sample_tokens_R = parts[5:]
        """Whose token goes where in row memory, and which of the step's tokens it follows."""
        self._offsets = [part.storage_offset() for part in parts]
        self.token_ids_T = self._zeros(max_tokens)
        self.positions_T = self._zeros(max_tokens)
        self.slots_GT = self._zeros(len(rows.tables), max_tokens)
        self._gather_step = gather_step.on(self._device)

    def rounded(self, num_tokens: int, multiple: int) -> int:
        """The next multiple for which there is room."""
        return min(ceil_div(num_tokens, multiple) * multiple, len(self.token_ids_T))

    def load(self, batch: StepBatch) -> None:
        """Send the step's numbers. Enqueued; the host does not wait."""
        view = batch.view
        starts, lengths = view.query_starts, view.lengths
        parts: list[list[int]] = [
            [
                batch.num_singles,
                view.num_paged,
                batch.total_tokens,
                batch.num_shared_blocks,
                len(batch.rows),
            ],
            batch.rows,
            starts,
            batch.first_positions,
            lengths,
            batch.sample_rows,
            [lengths[i] for i in batch.sampling],
            [starts[i + 1] - 1 for i in batch.sampling],
        ]
        # Pinned memory goes back to a cache that waits for the transfer: each step takes a fresh piece.
        staging = torch.empty(len(self._ints), dtype=torch.int32, pin_memory=self._device.type == "cuda")
        ints = staging.numpy()
        for offset, part in zip(self._offsets, parts, strict=True):
            ints[offset : offset + len(part)] = part
        self._ints.copy_(staging, non_blocking=True)

    def gather(self, num_tokens: int) -> None:
        """Fill the first `num_tokens` places; those past the step's own get token 0 and no slot."""
        rows = self._rows
        self._gather_step(
            rows.memory_RW,
            self.rows_S,
            self.starts_S1,
            self.firsts_S,
            self.counts,
            rows.table_columns,
            rows.block_size,
            self.token_ids_T[:num_tokens],
            self.positions_T[:num_tokens],
            self.slots_GT[:, :num_tokens],
        )

    def step_rows(self, bounds: StepBounds) -> StepRows:
        """The same for recurrent layers."""
        num_seqs = bounds.num_seqs
        return StepRows(
            rows_S=self.rows_S[:num_seqs],
            starts_S1=self.starts_S1[: num_seqs + 1],
            lengths_S=self.lengths_S[:num_seqs],
            counts=self.counts,
            num_seqs=num_seqs,
            num_singles=bounds.num_singles,
            has_chunks=bounds.has_chunks,
        )

    def views(self, bounds: StepBounds, host: HostView | None) -> list[StepView]:
        """One per KV group."""
        num_tokens, num_seqs = bounds.num_tokens, bounds.num_seqs
        return [
            StepView(
                host=host,
                num_tokens=num_tokens,
                num_seqs=num_seqs,
                num_singles=bounds.num_singles,
                has_chunks=bounds.has_chunks,
                shares_prefix=bounds.shares_prefix,
                counts=self.counts,
                rows_S=self.rows_S[:num_seqs],
                starts_S1=self.starts_S1[: num_seqs + 1],
                lengths_S=self.lengths_S[:num_seqs],
                positions_T=self.positions_T[:num_tokens],
                slots_T=slots_T[:num_tokens],
                table_RM=table_RM,
            )
            for slots_T, table_RM in zip(self.slots_GT, self._rows.tables, strict=True)
        ]

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=self._device)
