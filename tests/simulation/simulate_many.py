"""Many seeds of a simulation, in several processes if wanted.

    python -m tests.simulation.simulate_many SEED [SEEDS] [REQUESTS] [--jobs 16] [--out result.json]

Prints a JSON result and a line that says PASS or FAIL; a seed that fails is named, and replays alone:
`python -m tests.simulation.simulate SEED REQUESTS`, or `simulate_supervised`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tests.run_result import add_result_options, conclude, keep
from tests.simulation import simulate, simulate_supervised

KINDS = {"core": simulate.run, "supervised": simulate_supervised.run}
"""A core alone; engine and supervisor above cores that die."""

FAULTS = ("failures", "poisoned", "too_large", "restarts", "stalls", "failed_starts")
"""Counts of what a report says was broken on purpose."""
NUM_PER_TASK = 20
KEEP_S = 30.0
"""How often an unfinished result is written."""


@dataclass
class Totals:
    """Sums of all reports, and the seeds that failed with what they said."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    num_seeds: int = 0

    def add(self, seed: int, outcome: dict[str, int] | str) -> None:
        self.num_seeds += 1
        if isinstance(outcome, str):
            self.failed[seed] = outcome
        else:
            self.counts.update(outcome)

    def result(self) -> dict[str, Any]:
        return {
            "seeds": self.num_seeds,
            **self.counts,
            "faults": sum(self.counts[name] for name in FAULTS),
            "failed": self.failed,
            "passed": not self.failed,
        }


def run_one(seed: int, requests: int, kind: str) -> tuple[int, dict[str, int] | str]:
    """The counts of its report, or how it failed."""
    try:
        report = asdict(KINDS[kind](seed, requests))
    except Exception as error:
        return seed, f"{type(error).__name__}: {error}"[:500]
    del report["seed"]
    return seed, report


def outcomes(
    seeds: Sequence[int], requests: int, jobs: int, kind: str
) -> Iterator[tuple[int, dict[str, int] | str]]:
    """As they come."""
    one = partial(run_one, requests=requests, kind=kind)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=NUM_PER_TASK)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("seeds", type=int, nargs="?", default=200)
    parser.add_argument("requests", type=int, nargs="?", default=50, help="of each seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--kind", choices=KINDS, default="core")
    add_result_options(parser)
    options = parser.parse_args()
    began = kept_at = time.monotonic()
    totals, head = Totals(), {"kind": options.kind, "first_seed": options.first}
    seeds = range(options.first, options.first + options.seeds)
    for seed, outcome in outcomes(seeds, options.requests, options.jobs, options.kind):
        totals.add(seed, outcome)
        if time.monotonic() - kept_at > KEEP_S:
            kept_at = time.monotonic()
            keep("simulate", {**head, **totals.result(), "is_finished": False}, began, options)
    return conclude("simulate", {**head, **totals.result(), "is_finished": True}, began, options)


if __name__ == "__main__":
    sys.exit(main())
