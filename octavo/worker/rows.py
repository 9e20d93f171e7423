"""TokenRows: what the device remembers of each running request. Only changes reach it.

The device holds tokens, counts and block tables; the host mirrors the counts, which follow from the
protocol alone (messages/step.py), so planning a step never waits for the device. Hot path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.base.integers import ceil_div
from octavo.messages.step import NewRow, SchedulerOutput


class TokenRows:
    """State of `num_rows` rows. A row not in use holds anything."""

    def __init__(
        self, *, num_rows: int, max_model_len: int, block_size: int, num_groups: int, device: torch.device
    ) -> None:
        self.device = device
        self.block_size = block_size
        self.tokens = self._zeros(num_rows, max_model_len + 1)
        """Known tokens from the left. One column more than the model's length: the last token sampled."""
        self.lengths = self._zeros(num_rows)
        self.prompt_lengths = self._zeros(num_rows)
        self.computed = self._zeros(num_rows)
        """Tokens whose keys and values exist."""
        max_blocks = ceil_div(max_model_len + 1, block_size)
        self.block_tables = [self._zeros(num_rows, max_blocks) for _ in range(num_groups)]
        self.num_known = [0] * num_rows
        """Host mirror of `lengths`."""
        self.num_computed = [0] * num_rows
        """Host mirror of `computed`."""
        self._num_blocks = [[0] * num_rows for _ in range(num_groups)]

    def apply(self, step: SchedulerOutput) -> None:
        """Take in the rows and blocks that a step brings."""
        for new_row in step.new_rows:
            self._fill(new_row)
        for group, table in enumerate(self.block_tables):
            self._append_blocks(group, table, step)

    def advance(
        self, rows: Sequence[int], num_tokens: Sequence[int], rows_S: torch.Tensor, num_tokens_S: torch.Tensor
    ) -> None:
        """The keys and values of the next `num_tokens` tokens of these rows exist now."""
        self.computed[rows_S] += num_tokens_S
        for row, count in zip(rows, num_tokens, strict=True):
            self.num_computed[row] += count

    def append(self, rows: Sequence[int], rows_S: torch.Tensor, token_ids_S: torch.Tensor) -> None:
        """One more token for each of these rows, straight from the sampler."""
        self.tokens[rows_S, self.lengths[rows_S]] = token_ids_S
        self.lengths[rows_S] += 1
        for row in rows:
            self.num_known[row] += 1

    def _fill(self, new: NewRow) -> None:
        row = new.row
        assert 0 <= new.num_computed_tokens < len(new.token_ids), "a row enters with something to compute"
        assert len(new.token_ids) <= self.tokens.shape[1], "a row has room for all its tokens"
        self.tokens[row, : len(new.token_ids)] = self._tensor(new.token_ids)
        self.lengths[row] = self.num_known[row] = len(new.token_ids)
        self.prompt_lengths[row] = new.num_prompt_tokens
        self.computed[row] = self.num_computed[row] = new.num_computed_tokens
        for table, num_blocks, block_ids in zip(
            self.block_tables, self._num_blocks, new.block_ids, strict=True
        ):
            table[row, : len(block_ids)] = self._tensor(block_ids)
            num_blocks[row] = len(block_ids)

    def _append_blocks(self, group: int, table: torch.Tensor, step: SchedulerOutput) -> None:
        num_blocks = self._num_blocks[group]
        places: list[tuple[int, int, int]] = []
        for row, by_group in zip(step.rows, step.new_blocks, strict=True):
            if by_group and by_group[group]:
                first = num_blocks[row]
                places += [(row, first + i, block) for i, block in enumerate(by_group[group])]
                num_blocks[row] += len(by_group[group])
        if places:
            rows_N, columns_N, blocks_N = self._tensor(places).unbind(1)
            table[rows_N, columns_N] = blocks_N

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def _tensor(self, values: Sequence[int] | Sequence[tuple[int, ...]]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)
