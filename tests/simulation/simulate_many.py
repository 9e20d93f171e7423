"""Many seeds of the simulation: `python tests/simulation/simulate_many.py SEED [SEEDS] [REQUESTS]`.

Prints a JSON result and a line that says PASS or FAIL; a seed that fails is named, and replays alone.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from simulate import run


def run_many(first: int, num_seeds: int, requests: int) -> dict[str, object]:
    """Sums of all reports, and the seeds that failed with what they said."""
    totals: Counter[str] = Counter()
    failed: dict[int, str] = {}
    for seed in range(first, first + num_seeds):
        try:
            report = asdict(run(seed, requests))
        except Exception as error:
            failed[seed] = f"{type(error).__name__}: {error}"[:500]
            continue
        del report["seed"]
        totals.update(report)
    return {"first_seed": first, "seeds": num_seeds, **totals, "failed": failed, "passed": not failed}


def main(arguments: Sequence[str]) -> int:
    numbers = [int(word) for word in arguments]
    first, num_seeds, requests = (*numbers, *(1, 200, 50)[len(numbers) :])
    result = run_many(first, num_seeds, requests)
    verdict = "PASS" if result["passed"] else "FAIL"
    sys.stdout.write(f"{json.dumps(result)}\n{verdict} simulate\n")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
