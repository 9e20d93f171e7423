"""Rows given as (params, prompt, output), a token table like the worker's, and one step over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.sampler import Sampled, Sampler

EOS = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    tokens: torch.Tensor
    lengths: torch.Tensor
    prompt_lengths: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Row:
    params: SamplingParams
    prompt: list[int]
    output: list[int]
    key: int = 0

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.output


def make_table(rows: dict[int, Row], num_rows: int = 16, width: int = 64) -> Table:
    """Whatever a row does not know yet is a token id that would be an error to look at."""
    table = Table(
        tokens=torch.full((num_rows, width), 10**9),
        lengths=torch.zeros(num_rows, dtype=torch.int64),
        prompt_lengths=torch.zeros(num_rows, dtype=torch.int64),
    )
    for number, row in rows.items():
        table.tokens[number, : len(row.tokens)] = torch.tensor(row.tokens)
        table.lengths[number] = len(row.tokens)
        table.prompt_lengths[number] = len(row.prompt)
    return table


def sample(logits: torch.Tensor, rows: dict[int, Row], sampler: Sampler | None = None) -> Sampled:
    """One step over these rows, in a fresh sampler unless one is given."""
    sampler = sampler or Sampler(num_rows=16, vocab_size=logits.shape[1], device=torch.device("cpu"))
    for number, row in rows.items():
        sampler.add_row(number, row.params, row.key, [EOS], row.tokens, len(row.prompt))
    return sampler.sample(logits, list(rows), make_table(rows))
