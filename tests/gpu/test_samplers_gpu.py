"""The rarer samplers on a GPU: nothing is waited for, and the CPU's choice comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from octavo.messages.params import SamplingParams
from octavo.messages.samplers import DryBreakers, ThinkingBudget
from octavo.worker.sampling.sampler import Sampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

VOCAB = 151936
CUDA = torch.device("cuda")
BREAKERS = DryBreakers([11, 12, 13], [1, 2, 3], [[], [14, 15]])

WISHES: dict[str, dict[str, Any]] = {
    "typical_p": {"typical_p": 0.7},
    "top_n_sigma": {"top_n_sigma": 1.2},
    "xtc": {"min_p": 0.02, "xtc_probability": 0.5, "xtc_threshold": 0.05},
    "all filters": {
        "top_n_sigma": 3.0, "typical_p": 0.95, "min_p": 0.01, "top_k": 50, "top_p": 0.9,
        "xtc_probability": 1.0, "xtc_threshold": 0.02, "temperature": 0.7,
    },
    "dry": {"dry_multiplier": 0.8, "dry_breakers": BREAKERS, "temperature": 0.0},
    "dry, a small window": {"dry_multiplier": 2.0, "dry_penalty_last_n": 20, "dry_allowed_length": 1},
    "a window of repetition": {"repetition_penalty": 1.3, "repeat_last_n": 16},
    "thinking": {"thinking_budget": ThinkingBudget(end_token_ids=[3, 4], budget=5, is_open=True)},
    "named log-probabilities": {"logprob_token_ids": [5, 7, 9]},
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    tokens: torch.Tensor
    num_known: NDArray[np.int32]
    num_prompt: NDArray[np.int32]


def make_table(num_rows: int, device: torch.device) -> Table:
    """Rows that repeat themselves: few different tokens."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(8, 20, (num_rows, 300), dtype=torch.int32, generator=generator)
    known = np.arange(num_rows, dtype=np.int32) * 7 % 250 + 40
    return Table(tokens.to(device), known, known // 2)


def make_sampler(params: list[SamplingParams], device: torch.device) -> Sampler:
    sampler = Sampler(num_rows=len(params), vocab_size=VOCAB, device=device)
    for row, wish in enumerate(params):
        sampler.add_row(row, wish, row * 7919, [0], [1], 1)
    return sampler


def random_logits(count: int) -> torch.Tensor:
    return torch.randn(count, VOCAB, generator=torch.Generator().manual_seed(8)) * 2.5


@pytest.mark.parametrize("wish", WISHES)
def test_what_the_cpu_chooses(wish: str) -> None:
    """Exponentials differ in their last bits, so a draw on a border may move: hardly any is on one."""
    count = 32
    params = [SamplingParams(**WISHES[wish]) for _ in range(count)]
    logits = random_logits(count)
    rows = list(range(count))
    cpu = torch.device("cpu")
    expected = make_sampler(params, cpu).sample(logits, rows, make_table(count, cpu)).finish()
    pending = make_sampler(params, CUDA).sample(logits.to(CUDA), rows, make_table(count, CUDA))
    torch.cuda.synchronize()
    found = pending.finish()
    assert found.failed == expected.failed == {}
    differs = sum(a != b for a, b in zip(found.token_ids, expected.token_ids, strict=True))
    assert differs <= 1
    assert sorted(found.logprobs) == sorted(expected.logprobs)


def test_nothing_is_waited_for_and_neighbours_change_nothing() -> None:
    params = [SamplingParams(**{"temperature": 0.9, **wish}) for wish in WISHES.values()] + [SamplingParams()]
    rows, table = list(range(len(params))), make_table(len(params), CUDA)
    sampler, logits = make_sampler(params, CUDA), random_logits(len(params)).to(CUDA)
    sampler.sample(logits, rows, table)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        together = sampler.sample(logits, rows, table)
        alone = [sampler.sample(logits[row : row + 1], [row], table) for row in rows]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert together.finish().token_ids == [one.finish().token_ids[0] for one in alone]
