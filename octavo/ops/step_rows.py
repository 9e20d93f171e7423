"""StepRows: whose tokens a step computes, for ops on what rows remember. S sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from octavo.ops.step import SEQUENCES, SINGLES


class HostRow(NamedTuple):
    """One sequence, read on the host."""

    row: int
    start: int
    """Its tokens are start to end of the step."""
    end: int
    is_fresh: bool
    """They are its first: what the row remembers is of somebody else."""


class StepRows(NamedTuple):
    """As in attention's StepView: sequences of one token come first, nothing past the counts is valid."""

    rows_S: torch.Tensor
    starts_S1: torch.Tensor
    lengths_S: torch.Tensor
    """Tokens of each sequence, this step's included."""
    counts: torch.Tensor
    num_seqs: int
    """The step's own number, or while a graph is captured the most that a replay may bring."""
    num_singles: int
    """The same of the sequences of one token."""
    has_chunks: bool
    """Whether there are (or may be) sequences of more."""

    def on_host(self, first: int = 0) -> Iterator[HostRow]:
        """The step's sequences from this number on. Waits for the device: for forms that run on the host."""
        num_seqs = int(self.counts[SEQUENCES])
        starts = self.starts_S1[: num_seqs + 1].tolist()
        rows, lengths = self.rows_S[:num_seqs].tolist(), self.lengths_S[:num_seqs].tolist()
        for index in range(first, num_seqs):
            start, end = starts[index], starts[index + 1]
            yield HostRow(rows[index], start, end, lengths[index] == end - start)

    def singles_on_host(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the sequences of one token, and whether that is their first: both [singles]."""
        count = int(self.counts[SINGLES])
        return self.rows_S[:count].long(), self.lengths_S[:count] == 1


def example_rows(*sequences: tuple[int, int, int], places: int = 2) -> StepRows:
    """For examples of ops: (row, tokens before, tokens now) of each, with `places` of garbage behind."""
    garbage = 1 << 20
    starts = [0]
    for _, _, count in sequences:
        starts.append(starts[-1] + count)
    counts = [garbage] * 8
    counts[SINGLES] = num_singles = sum(count == 1 for _, _, count in sequences)
    counts[SEQUENCES] = len(sequences)

    def ints(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32)

    return StepRows(
        rows_S=ints([row for row, _, _ in sequences] + [garbage] * places),
        starts_S1=ints(starts + [garbage] * places),
        lengths_S=ints([before + count for _, before, count in sequences] + [garbage] * places),
        counts=ints(counts),
        num_seqs=len(sequences) + places,
        num_singles=num_singles + places,
        has_chunks=num_singles < len(sequences),
    )
