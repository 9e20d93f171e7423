"""Rows given as (params, prompt, output), a token table like the worker's, and one step over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.messages.params import SamplingParams
from octavo.messages.result import TokenLogprobs
from octavo.worker.sampling.history import TokenTable
from octavo.worker.sampling.sampler import Sampler

EOS = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    tokens: torch.Tensor
    num_known: NDArray[np.int32]
    num_prompt: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step chose, with its tokens as a tensor to compare."""

    token_ids: torch.Tensor
    logprobs: dict[int, TokenLogprobs]
    failed: dict[int, str]


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
        tokens=torch.full((num_rows, width), 10**9, dtype=torch.int32),
        num_known=np.zeros(num_rows, dtype=np.int32),
        num_prompt=np.zeros(num_rows, dtype=np.int32),
    )
    for number, row in rows.items():
        table.tokens[number, : len(row.tokens)] = torch.tensor(row.tokens)
        table.num_known[number] = len(row.tokens)
        table.num_prompt[number] = len(row.prompt)
    return table


def sample(logits: torch.Tensor, rows: dict[int, Row], sampler: Sampler | None = None) -> Step:
    """One step over these rows, in a fresh sampler unless one is given."""
    sampler = sampler or Sampler(num_rows=16, vocab_size=logits.shape[1], device=logits.device)
    for number, row in rows.items():
        sampler.add_row(number, row.params, row.key, [EOS], row.tokens, len(row.prompt))
    return run_step(sampler, logits, list(rows), make_table(rows))


def run_step(sampler: Sampler, logits: torch.Tensor, rows: Sequence[int], table: TokenTable) -> Step:
    """Sample and finish; the device's tokens are those that the host gets to see."""
    pending = sampler.sample(logits, rows, table)
    assert pending.token_ids.dtype == torch.int32
    sampled = pending.finish()
    assert pending.token_ids.tolist() == sampled.token_ids
    return Step(token_ids=pending.token_ids.to(torch.int64), logprobs=sampled.logprobs, failed=sampled.failed)
