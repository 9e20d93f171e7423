"""TokenRows: what the device remembers of each running request. Only changes reach it.

Row memory is one int32 array: a row's tokens, then its block table for each KV group. The host mirrors
the counts, which follow from the protocol alone (messages/step.py), so planning a step never waits for
the device. Hot path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from octavo.base.integers import ceil_div
from octavo.messages.step import NewRow, SchedulerOutput
from octavo.ops.step import append_tokens, write_segments
from octavo.worker.upload import upload


def row_memory_bytes(*, num_rows: int, max_model_len: int, block_size: int, num_groups: int) -> int:
    """What TokenRows of these sizes take on the device."""
    token_columns = max_model_len + 1
    return num_rows * (token_columns + num_groups * ceil_div(token_columns, block_size)) * 4


class TokenRows:
    """State of `num_rows` rows. A row not in use holds anything."""

    def __init__(
        self, *, num_rows: int, max_model_len: int, block_size: int, num_groups: int, device: torch.device
    ) -> None:
        self.device = device
        self.block_size = block_size
        token_columns = max_model_len + 1
        """One more than the model's length: the last token sampled."""
        max_blocks = ceil_div(token_columns, block_size)
        self.table_columns = [token_columns + group * max_blocks for group in range(num_groups)]
        width = token_columns + num_groups * max_blocks
        self.memory_RW = torch.zeros(num_rows, width, dtype=torch.int32, device=device)
        self.tokens = self.memory_RW[:, :token_columns]
        """Known tokens from the left."""
        self.tables = [self.memory_RW[:, column : column + max_blocks] for column in self.table_columns]
        self.num_known = np.zeros(num_rows, dtype=np.int32)
        """Tokens of each row, sampled ones included."""
        self.num_computed = np.zeros(num_rows, dtype=np.int32)
        """Tokens whose keys and values exist."""
        self.num_prompt = np.zeros(num_rows, dtype=np.int32)
        self.host_tables = [np.zeros((num_rows, max_blocks), dtype=np.int32) for _ in range(num_groups)]
        """Block tables again: which blocks sequences share is asked of the host."""
        self._num_blocks = [[0] * num_rows for _ in range(num_groups)]
        self._write_segments = write_segments.on(device)
        self._append_tokens = append_tokens.on(device)

    def apply(self, step: SchedulerOutput) -> None:
        """Take in the rows and blocks that a step brings."""
        changes = _Changes()
        for new_row in step.new_rows:
            self._fill(new_row, changes)
        for group in range(len(self.tables)):
            self._append_blocks(group, step, changes)
        if changes.segments:
            both = upload(changes.segments + changes.payload, torch.int32, self.device)
            segments, payload_N = both.tensor_split((len(changes.segments),))
            self._write_segments(self.memory_RW, payload_N, segments.view(-1, 4), changes.longest)

    def advance(self, rows: Sequence[int], num_tokens: Sequence[int]) -> None:
        """The keys and values of the next `num_tokens` tokens of these rows exist now."""
        self.num_computed[rows] += np.array(num_tokens, dtype=np.int32)

    def append(
        self, rows: Sequence[int], rows_R: torch.Tensor, columns_R: torch.Tensor, token_ids_R: torch.Tensor
    ) -> None:
        """One more token for each of these rows, straight from the sampler."""
        self._append_tokens(self.memory_RW, rows_R, columns_R, token_ids_R)
        self.num_known[rows] += 1

    def append_known(self, row: int, token_ids: Sequence[int]) -> list[int]:
        """More tokens that the host knows already, as far as the row has room. Returns those."""
        start = int(self.num_known[row])
        fitting = list(token_ids[: self.tokens.shape[1] - start])
        self.tokens[row, start : start + len(fitting)] = upload(fitting, torch.int32, self.device)
        self.num_known[row] += len(fitting)
        return fitting

    def warm_up(self) -> None:
        """Call the device's operations once without an effect."""
        zeros = torch.zeros(4, dtype=torch.int32, device=self.device)
        self._write_segments(self.memory_RW, zeros, zeros.view(1, 4), 1)
        self._append_tokens(self.memory_RW, zeros[:1] - 1, zeros[:1], zeros[:1])

    def _fill(self, new: NewRow, changes: _Changes) -> None:
        row = new.row
        assert 0 <= new.num_computed_tokens < len(new.token_ids), "a row enters with something to compute"
        assert len(new.token_ids) <= self.tokens.shape[1], "a row has room for all its tokens"
        changes.add(row, 0, new.token_ids)
        self.num_known[row] = len(new.token_ids)
        self.num_prompt[row] = new.num_prompt_tokens
        self.num_computed[row] = new.num_computed_tokens
        for group, block_ids in enumerate(new.block_ids):
            self._num_blocks[group][row] = 0
            self._add_blocks(group, row, block_ids, changes)

    def _append_blocks(self, group: int, step: SchedulerOutput, changes: _Changes) -> None:
        for row, by_group in zip(step.rows, step.new_blocks, strict=True):
            if by_group and by_group[group]:
                self._add_blocks(group, row, by_group[group], changes)

    def _add_blocks(self, group: int, row: int, block_ids: Sequence[int], changes: _Changes) -> None:
        start = self._num_blocks[group][row]
        end = self._num_blocks[group][row] = start + len(block_ids)
        self.host_tables[group][row, start:end] = block_ids
        changes.add(row, self.table_columns[group] + start, block_ids)


class _Changes:
    """Pieces of rows to write, as the op write_segments takes them."""

    def __init__(self) -> None:
        self.payload: list[int] = []
        self.segments: list[int] = []
        """Row, column, count and offset in the payload of each piece."""
        self.longest = 0

    def add(self, row: int, column: int, values: Sequence[int]) -> None:
        if values:
            self.segments += (row, column, len(values), len(self.payload))
            self.payload += values
            self.longest = max(self.longest, len(values))
