"""One run spread over servers that work side by side, and the file that it ends in."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from octavo.cli.machine import machine_facts
from tests.tiny import save_model

Part = TypeVar("Part")


@dataclass(frozen=True)
class Share:
    """What one of several servers does."""

    number: int
    """Which of them."""
    seed: int
    amount: int
    model: Path
    folder: Path
    ends_at: float
    """Monotonic: no new fault or restart from then on."""


def run_shares(
    work: Callable[[Share], Part], *, amount: int, servers: int, seed: int, max_seconds: float
) -> list[Part]:
    """`work` once for each server, each in a process of its own, with its part of `amount`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(folder / "tiny")
        shares = [
            Share(
                number=number,
                seed=seed * 1000 + number,
                amount=amount // servers + (number < amount % servers),
                model=model,
                folder=folder,
                ends_at=time.monotonic() + max_seconds,
            )
            for number in range(servers)
        ]
        if servers == 1:
            return [work(shares[0])]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(servers, mp_context=context) as pool:
            return list(pool.map(work, shares))


def percentile(values: list[float], share: float) -> float:
    """Of nothing it is 0."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3) if ordered else 0.0


def conclude(name: str, result: dict[str, Any], began: float, file: Path | None, commit: str | None) -> int:
    """Print the result and PASS or FAIL, keep it where it is wanted; the exit status."""
    machine = machine_facts()
    if commit is not None:
        machine["commit"] = commit
    whole = {"run": name, **result, "seconds": round(time.monotonic() - began, 1), "machine": machine}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(whole, indent=1) + "\n")
    sys.stdout.write(f"{json.dumps(whole)}\n{'PASS' if result['passed'] else 'FAIL'} {name}\n")
    return 0 if result["passed"] else 1
