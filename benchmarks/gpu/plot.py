"""The picture of a claim: how many times as fast as the peer, workload by workload.

    python -m benchmarks.gpu.plot benchmarks/results/h100.json benchmarks/results/h100.svg

The same numbers always give the same file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

from benchmarks.gpu.compare import number

COLORS = {"llama8b": "#2f6f9f", "qwen0.6b": "#d98b2b", "smollm2-135m-instruct": "#2f6f9f"}
INK, PALE = "#222222", "#999999"
BAR_HEIGHT, ROW_INCHES, WIDTH_INCHES = 0.62, 0.26, 8.6
MOST_SHOWN = 3.0
"""Longer bars end here; their number says how long they are."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("claim", type=Path)
    parser.add_argument("picture", type=Path, help=".svg or .png")
    arguments = parser.parse_args(argv)
    draw(json.loads(arguments.claim.read_text()), arguments.picture)


def draw(claim: dict[str, Any], path: Path) -> None:
    """One bar a result, from the peer's speed at 1; a tick where the target is."""
    results = claim["results"]
    peer = claim.get("peer") or f"vLLM {claim['versions'].get('vllm', '')}"
    style: Any = {
        "svg.hashsalt": "octavo",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.edgecolor": PALE,
        "text.color": INK,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 1.3 + ROW_INCHES * len(results)))
        edge = min(MOST_SHOWN, max(1.5, *(speed_up(result) for result in results)))
        for place, result in enumerate(results):
            _bar(axes, place, result, edge)
        axes.text(edge, -1, f"   speed   octavo : {peer.split()[0]}", va="center", ha="left", color=PALE)
        axes.axvline(1.0, color=INK, linewidth=1)
        axes.set_yticks(range(len(results)), [_label(result) for result in results])
        axes.set_ylim(len(results) - 0.4, -0.6)
        axes.set_xlim(0, edge)
        axes.set_xlabel(f"times as fast as {peer} (1: equal, short line: target)")
        axes.set_title(f"{_device(claim['machine'])}, {claim['date']}", fontsize=10, loc="left", pad=16)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.tight_layout()
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, metadata=metadata)
        plt.close(figure)


def _device(machine: dict[str, Any]) -> str:
    return str(machine.get("gpu") or f"{machine.get('cpu', 'CPU')}, {machine.get('cpu_cores')} cores")


def speed_up(result: dict[str, Any]) -> float:
    """Times as fast as the peer, whichever way the metric counts."""
    return _as_speed(result, float(result["ratio"]))


def _as_speed(result: dict[str, Any], ratio: float) -> float:
    return 1 / ratio if result["better"] == "lower" else ratio


def _bar(axes: Any, place: int, result: dict[str, Any], edge: float) -> None:
    """Bar and target end at the edge of the picture; the numbers stand beside it."""
    speed = speed_up(result)
    axes.barh(place, min(speed, edge), height=BAR_HEIGHT, color=COLORS.get(result["shape"], PALE))
    if result["target"] is not None:
        target = min(edge, _as_speed(result, float(result["target"])))
        half = BAR_HEIGHT / 2
        axes.plot([target, target], [place - half, place + half], color=INK, linewidth=1.4, clip_on=False)
    text = f"  {speed:5.2f}x   {number(result['octavo'])} : {number(result['peer'])}"
    axes.text(edge, place, text, va="center", ha="left")


def _label(result: dict[str, Any]) -> str:
    return f"{result['workload']} {result['shape']}  {result['metric']}"


if __name__ == "__main__":
    main()
