"""What the offline benchmarks share: a loaded LLM, params of exact length, outcomes from its outputs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from octavo.cli.bench.measure import Outcome
from octavo.config.flags import given_options
from octavo.messages.params import SamplingParams

if TYPE_CHECKING:
    from octavo.engine.llm import LLM
    from octavo.engine.outputs import RequestOutput

OFFLINE_GROUPS = ("model", "cache", "schedule", "observe")


@contextmanager
def loaded(parsed: argparse.Namespace) -> Iterator[LLM]:
    """The model of the command line, freed at the end."""
    options = given_options(parsed)
    from octavo.engine.llm import LLM

    with LLM(**options) as llm:
        yield llm


def exact_length(num_tokens: int, temperature: float = 0.0) -> SamplingParams:
    """Exactly this many tokens, whatever the model would say; text is not needed."""
    return SamplingParams(max_tokens=num_tokens, ignore_eos=True, temperature=temperature, detokenize=False)


def outcome_of(output: RequestOutput) -> Outcome:
    """The engine's own times as an outcome."""
    metrics = output.metrics
    assert metrics is not None, "a finished request has metrics"
    return Outcome(
        arrival_time=metrics.arrival_time,
        first_scheduled_time=metrics.first_scheduled_time,
        first_token_time=metrics.first_token_time,
        last_token_time=metrics.last_token_time,
        finished_time=metrics.finished_time,
        num_prompt_tokens=metrics.num_prompt_tokens,
        num_output_tokens=metrics.num_output_tokens,
        num_cached_tokens=output.num_cached_tokens,
    )
