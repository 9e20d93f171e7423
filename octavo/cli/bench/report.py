"""What a benchmark leaves: a table on the terminal and a JSON file that says where it was measured."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from octavo.base.errors import ConfigError
from octavo.cli.bench.measure import Distribution, Outcome, Summary
from octavo.cli.machine import machine_facts
from octavo.cli.streams import user_path
from octavo.config.flags import FlagParser, given_options
from octavo.config.root import iter_options

_NOT_KEPT = frozenset({"debug", "label", "save_result", "save_detailed", "plot", "model_argument"})
"""What says nothing about the run."""
_SECRETS = frozenset({"api_key", *(spec.name for spec in iter_options() if spec.is_secret)})
_LATENCIES = (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"), ("ITL", "itl_ms"), ("E2E", "e2el_ms"))


def add_report_arguments(parser: FlagParser, *, has_plot: bool = True) -> None:
    report = parser.add_argument_group("report")
    report.add_argument(
        "--save-result",
        "--output-json",
        metavar="FILE",
        help="Write the result as JSON, with machine and commit.",
    )
    report.add_argument("--label", metavar="TEXT", help="A name for this run, kept in the JSON.")
    if has_plot:
        report.add_argument(
            "--save-detailed", action="store_true", help="Keep every request's times in the JSON too."
        )
        report.add_argument("--plot", metavar="FILE", help="Draw the latencies to a .png, .svg or .pdf file.")


def check_outputs(parsed: argparse.Namespace) -> None:
    """Refuse before the run what could not be written after it, or not be found anywhere."""
    for flag in ("save_detailed", "label"):
        if getattr(parsed, flag, None) and parsed.save_result is None:
            option = "--" + flag.replace("_", "-")
            raise ConfigError(f"{option} is for the JSON file: give --save-result FILE too.", param=option)
    for flag in ("save_result", "plot"):
        name = getattr(parsed, flag, None)
        if name is not None:
            _check_output("--" + flag.replace("_", "-"), name)
    if getattr(parsed, "plot", None) is not None:
        from octavo.cli.bench.plot import check_plot

        check_plot(Path(parsed.plot))


def _check_output(option: str, name: str) -> None:
    path = user_path(name)
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name}: there is no such folder.", param=option)
    if path.is_dir():
        raise ConfigError(f"{option} {name}: this is a folder; name a file in it.", param=option)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option} {name}: this may not be written.", param=option)


def print_summary(title: str, summary: Summary) -> None:
    """Counts and rates as lines, latencies as a table."""
    console = Console(highlight=False)
    lines = [
        ("Requests finished", f"{summary.num_requests - summary.num_failed:,} in {summary.duration_s:.2f} s"),
        ("Requests failed", f"{summary.num_failed:,}"),
        ("Prompt tokens", f"{summary.prompt_tokens:,} ({summary.cached_tokens:,} from the prefix cache)"),
        ("Output tokens", f"{summary.output_tokens:,}"),
        ("Requests per second", f"{summary.request_throughput:.2f}"),
        ("Output tokens per second", f"{summary.output_throughput:.1f}"),
        ("All tokens per second", f"{summary.total_token_throughput:.1f}"),
    ]
    if summary.goodput is not None:
        lines.append(("Goodput, requests per second", f"{summary.goodput:.2f}"))
    console.print(f"\n{title}", style="bold")
    print_rows(console, lines)
    print_latencies(console, {name: getattr(summary, field) for name, field in _LATENCIES})


def print_rows(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console.print(f"  {name.ljust(width)}  {value}", markup=False)


def print_latencies(console: Console, rows: Mapping[str, Distribution | None]) -> None:
    table = Table(title=None, show_edge=False, pad_edge=True)
    table.add_column("ms")
    for column in ("mean", "p50", "p90", "p99", "max"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        values = ["-"] * 5 if row is None else [f"{value:.2f}" for value in msgspec.structs.astuple(row)]
        table.add_row(name, *values)
    console.print()
    console.print(table)


def print_errors(outcomes: Sequence[Outcome]) -> None:
    """The different errors with how often each came, most frequent first."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            counts[outcome.error] = counts.get(outcome.error, 0) + 1
    console = Console(stderr=True, highlight=False)
    for error, count in sorted(counts.items(), key=lambda item: -item[1])[:5]:
        console.print(f"{count} failed: {error}", style="red", markup=False)


def save_result(
    parsed: argparse.Namespace, kind: str, summary: msgspec.Struct, details: Mapping[str, Any]
) -> None:
    """Write --save-result, if asked for. Keys never get into the file."""
    if parsed.save_result is None:
        return
    result = {
        "benchmark": kind,
        "label": parsed.label,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine_facts(),
        "arguments": _arguments(parsed),
        "summary": summary,
        **details,
    }
    path = user_path(parsed.save_result)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    print(f"Saved {path}")


def _arguments(parsed: argparse.Namespace) -> dict[str, Any]:
    own = {key: value for key, value in vars(parsed).items() if "." not in key and value is not None}
    own.update(given_options(parsed))
    hidden = _NOT_KEPT | _SECRETS
    return {key: "inf" if value == math.inf else value for key, value in own.items() if key not in hidden}


def request_details(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Every request's times, from the first one sent, for --save-detailed."""
    began = min((outcome.arrival_time for outcome in outcomes), default=0.0)
    return [
        {
            "sent_s": round(outcome.arrival_time - began, 6),
            "first_token_s": _since(outcome.first_token_time, began),
            "finished_s": _since(outcome.finished_time, began),
            "prompt_tokens": outcome.num_prompt_tokens,
            "output_tokens": outcome.num_output_tokens,
            "gaps_s": [round(gap, 6) for gap in outcome.gaps],
            "error": outcome.error,
        }
        for outcome in outcomes
    ]


def _since(moment: float | None, began: float) -> float | None:
    return None if moment is None else round(moment - began, 6)
