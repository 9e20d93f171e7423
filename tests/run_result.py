"""How a large run ends: a JSON result with the machine and the commit, PASS or FAIL, an exit status."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from octavo.cli.machine import machine_facts


def add_result_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="a file for the result")
    parser.add_argument("--commit", help="where the checkout cannot say it")


def conclude(name: str, result: dict[str, Any], began: float, options: argparse.Namespace) -> int:
    """Print the result, keep it where it is wanted. began: monotonic. `result` says whether it `passed`."""
    whole = keep(name, result, began, options)
    sys.stdout.write(f"{json.dumps(whole)}\n{'PASS' if result['passed'] else 'FAIL'} {name}\n")
    return 0 if result["passed"] else 1


def keep(name: str, result: dict[str, Any], began: float, options: argparse.Namespace) -> dict[str, Any]:
    """Write the result to --out, whole or as far as it is known; returns all that was written."""
    machine = machine_facts()
    if options.commit is not None:
        machine["commit"] = options.commit
    whole = {"run": name, **result, "seconds": round(time.monotonic() - began, 1), "machine": machine}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps(whole, indent=1) + "\n")
        part.replace(options.out)
    return whole


def percentile(values: list[float], share: float) -> float:
    """Of nothing it is 0."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 4) if ordered else 0.0


def spread(values: list[float]) -> dict[str, float]:
    return {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": percentile(values, 1.0)}
