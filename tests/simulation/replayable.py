"""Many seeds of a simulation; one that fails says how to replay it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Report = TypeVar("Report")


def run_many(run: Callable[[int, int], Report], seeds: Iterable[int], requests: int) -> list[Report]:
    """`run(seed, requests)` of each seed."""
    reports = []
    for seed in seeds:
        try:
            reports.append(run(seed, requests))
        except Exception as error:
            error.add_note(f"replay: python -m {run.__module__} {seed} {requests}")
            raise
    return reports
