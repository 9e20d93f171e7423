"""Draws one benchmark run: how latencies are distributed, and output over time. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from octavo.base.errors import ConfigError
from octavo.cli.bench.measure import Outcome
from octavo.observe.latency import end_to_end, time_per_output_token, time_to_first_token

_FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Raise ConfigError if a plot could not be drawn to `path`."""
    if path.suffix not in _FORMATS:
        raise ConfigError(f"--plot {path}: the name must end in {', '.join(_FORMATS)}.", param="--plot")
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed. Run: pip install 'octavo[bench]'",
            param="--plot",
        )


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Write the figure: cumulative TTFT, TPOT and E2E, and output tokens per second over time."""
    from matplotlib.figure import Figure

    good = [outcome for outcome in outcomes if outcome.error is None]
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2).flatten()
    measures: tuple[tuple[str, Callable[[Outcome], float | None]], ...] = (
        ("TTFT (ms)", time_to_first_token),
        ("TPOT (ms)", time_per_output_token),
        ("E2E (ms)", end_to_end),
    )
    for axis, (label, measure) in zip(axes, measures, strict=False):
        _cumulative(axis, label, [value for value in map(measure, good) if value is not None])
    _output_over_time(axes[3], good)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _cumulative(axis: Any, label: str, seconds: list[float]) -> None:
    values = sorted(value * 1000 for value in seconds)
    axis.set_xlabel(label)
    axis.set_ylabel("share of requests")
    axis.set_ylim(0, 1.02)
    axis.grid(visible=True, alpha=0.3)
    if values:
        axis.set_xlim(0, values[-1] * 1.05 or 1)
        axis.step(values, [(index + 1) / len(values) for index in range(len(values))], where="post")


def _output_over_time(axis: Any, outcomes: Sequence[Outcome]) -> None:
    """Each request's tokens spread evenly between its first and last token, in up to 60 bins."""
    axis.set_xlabel("seconds since start")
    axis.set_ylabel("output tokens per second")
    axis.grid(visible=True, alpha=0.3)
    spans = [
        (outcome.first_token_time, outcome.last_token_time, outcome.num_output_tokens)
        for outcome in outcomes
        if outcome.first_token_time is not None and outcome.last_token_time is not None
    ]
    if not spans:
        return
    began = min(outcome.arrival_time for outcome in outcomes)
    width = max(max(last for _, last, _ in spans) - began, 1e-3) / 60
    bins = [0.0] * 61
    for first, last, tokens in spans:
        low, high = int((first - began) / width), int((last - began) / width)
        for index in range(low, high + 1):
            bins[index] += tokens / (high - low + 1)
    axis.step([index * width for index in range(61)], [count / width for count in bins], where="post")
