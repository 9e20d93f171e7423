"""What one seed stands for: a core's options and load, and how often what fails. And the right answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.base.integers import ceil_div
from octavo.config.schedule import ScheduleConfig
from octavo.core.kv.plan import plan_kv
from octavo.executor.fake import FULL, expected_tokens, sliding
from octavo.messages.kv import KVSpec

VOCAB = 50
EOS = 7


@dataclass(kw_only=True)
class Scenario:
    """What one seed stands for."""

    layers: list[KVSpec]
    block_size: int
    num_blocks: int
    max_len: int
    schedule: ScheduleConfig
    is_caching: bool
    depth: int
    eos_probability: float
    abort_share: float
    deadline_share: float
    fail_share: float
    row_fail_share: float
    memory_tokens: int | None
    """A step of more tokens than this does not fit the device."""
    memory_fail_share: float
    """Share of steps that do not fit whatever their size."""
    arrivals_per_step: float
    poison_share: float
    """Share of requests that make every step fail which holds them, from one of their tokens on."""
    core_death_share: float
    """Share of steps before which the core's process is killed."""
    force_share: float
    """Share of sampled tokens with others behind them that can only follow."""


def draw_scenario(rng: random.Random) -> Scenario:
    block_size = rng.choice([1, 2, 4, 8, 16])
    window = rng.randint(1, 24)
    layers = rng.choice(
        [
            [FULL, FULL],
            [sliding(window)] * 2,
            [FULL, sliding(window), sliding(window), sliding(window)],
            [sliding(window), FULL, sliding(window), FULL, sliding(window)],
            [sliding(window), sliding(window + 5), FULL],
        ]
    )
    max_len = rng.randint(8, 96)
    budget = rng.choice([1, 8, 16, 33, 64, 256])
    is_chunked = rng.random() < 0.8
    probe = plan_kv(layers, block_size=block_size, num_blocks=100, available_bytes=0, useful_tokens=0)
    whole = len(probe.groups) * ceil_div(max_len, block_size)
    depth, poison_share = rng.choice([1, 1, 1, 2, 2, 3]), rng.choice([0.0, 0.0, 0.0, 0.03, 0.2])
    # Tokens are forced between two steps only, and before they are computed: that cannot be poisoned.
    may_force = depth == 1 and not poison_share
    return Scenario(
        layers=layers,
        block_size=block_size,
        num_blocks=1 + int(whole * rng.choice([1.0, 1.3, 1.3, 2.0, 4.0])) + rng.randint(0, 3),
        max_len=max_len,
        schedule=ScheduleConfig(
            max_num_seqs=rng.choice([2, 5, 16, 40]),
            max_num_batched_tokens=budget if is_chunked else max(budget, max_len),
            enable_chunked_prefill=is_chunked,
            long_prefill_token_threshold=rng.choice([0, 0, 2, 10]),
            scheduling_policy=rng.choice(["fcfs", "priority", "fair"]),
        ),
        is_caching=rng.random() < 0.8,
        depth=depth,
        eos_probability=rng.choice([0.0, 0.0, 0.02, 0.1]),
        abort_share=0.3,
        deadline_share=rng.choice([0.0, 0.0, 0.2]),
        fail_share=rng.choice([0.0, 0.0, 0.0, 0.01, 0.05]),
        row_fail_share=rng.choice([0.0, 0.0, 0.0, 0.02, 0.1]),
        memory_tokens=rng.choice([None, None, None, 1, 5, 20]),
        memory_fail_share=rng.choice([0.0, 0.0, 0.0, 0.05]),
        arrivals_per_step=rng.choice([0.1, 1.0, 4.0, 20.0]),
        poison_share=poison_share,
        core_death_share=rng.choice([0.0, 0.0, 0.0, 0.02]),
        force_share=rng.choice([0.0, 0.3, 0.9]) if may_force else 0.0,
    )


def right_tokens(scenario: Scenario, known: Sequence[int], count: int, key: int) -> list[int]:
    """What follows these tokens, stop rules aside."""
    return expected_tokens(
        known,
        count,
        key=key,
        vocab_size=VOCAB,
        layers=scenario.layers,
        eos_probability=scenario.eos_probability,
        eos_token_id=EOS,
    )
