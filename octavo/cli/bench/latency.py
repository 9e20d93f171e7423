"""`octavo bench latency`: how long one batch takes from start to end, offline, again and again."""

from __future__ import annotations

import argparse
import random
import time

import msgspec
from rich.console import Console
from rich.progress import track

from octavo.base.errors import ConfigError
from octavo.cli.bench.measure import Distribution, Outcome, distribution
from octavo.cli.bench.offline import OFFLINE_GROUPS, exact_length, loaded, outcome_of
from octavo.cli.bench.report import (
    add_report_arguments,
    check_outputs,
    print_latencies,
    print_rows,
    save_result,
)
from octavo.cli.command import Command
from octavo.config.flags import FlagParser, add_config_options, parse_int
from octavo.observe.latency import time_per_output_token, time_to_first_token


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True):
    """All iterations of one batch."""

    batch_size: int
    input_len: int
    output_len: int
    num_iters: int
    output_throughput: float
    batch_ms: Distribution
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None


def _add_arguments(parser: FlagParser) -> None:
    batch = parser.add_argument_group("batch")
    for flag, default, text in (
        ("--input-len", 32, "Prompt tokens of each request"),
        ("--output-len", 128, "Output tokens of each request"),
        ("--batch-size", 8, "Requests in the batch"),
        ("--num-iters-warmup", 2, "Batches before the clock"),
        ("--num-iters", 10, "Batches measured"),
    ):
        batch.add_argument(
            flag, type=parse_int, default=default, metavar="N", help=f"{text} (default: {default})."
        )
    add_report_arguments(parser, has_plot=False)
    add_config_options(parser, OFFLINE_GROUPS)


def _run(parsed: argparse.Namespace) -> int:
    for name in ("input_len", "output_len", "batch_size", "num_iters"):
        if getattr(parsed, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1.", param=name)
    if parsed.num_iters_warmup < 0:
        raise ConfigError("--num-iters-warmup must be at least 0.", param="num_iters_warmup")
    check_outputs(parsed)
    batch_s, outcomes = _measure(parsed)
    batch_ms = distribution(batch_s)
    assert batch_ms is not None, "at least one batch was measured"
    summary = LatencySummary(
        batch_size=parsed.batch_size,
        input_len=parsed.input_len,
        output_len=parsed.output_len,
        num_iters=parsed.num_iters,
        output_throughput=parsed.batch_size * parsed.output_len / (batch_ms.mean / 1000),
        batch_ms=batch_ms,
        ttft_ms=distribution(map(time_to_first_token, outcomes)),
        tpot_ms=distribution(map(time_per_output_token, outcomes)),
    )
    console = Console(highlight=False)
    shape = f"{parsed.batch_size} x ({parsed.input_len} in + {parsed.output_len} out)"
    lines = [
        ("Batch", f"{shape}, {parsed.num_iters} times"),
        ("Output tokens per second", f"{summary.output_throughput:.1f}"),
    ]
    print_rows(console, lines)
    print_latencies(console, {"Batch": batch_ms, "TTFT": summary.ttft_ms, "TPOT": summary.tpot_ms})
    save_result(parsed, "latency", summary, {"batch_s": batch_s})
    return 0


def _measure(parsed: argparse.Namespace) -> tuple[list[float], list[Outcome]]:
    """Seconds per batch, and every request of the measured batches. Prompts are fresh each time."""
    source = random.Random(0)
    params = exact_length(parsed.output_len)
    batch_s: list[float] = []
    outcomes: list[Outcome] = []
    with loaded(parsed) as llm:
        low, high = min(100, llm.ready.vocab_size - 1), min(8000, llm.ready.vocab_size)
        rounds = range(-parsed.num_iters_warmup, parsed.num_iters)
        console = Console(stderr=True)
        for index in track(rounds, "Batches", console=console, disable=not console.is_terminal):
            prompts = [
                [source.randrange(low, high) for _ in range(parsed.input_len)]
                for _ in range(parsed.batch_size)
            ]
            began = time.monotonic()
            outputs = llm.generate(prompts, params, use_tqdm=False)
            if index >= 0:
                batch_s.append(time.monotonic() - began)
                outcomes.extend(map(outcome_of, outputs))
    return batch_s, outcomes


COMMAND = Command(
    description="Time one batch of requests from start to end, offline.",
    add_arguments=_add_arguments,
    run=_run,
)
