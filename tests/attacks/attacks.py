"""All attacks at full size against real servers: a report and a line PASS or FAIL.

    python -m tests.attacks.attacks --report build/attacks.json

--only takes the beginnings of ids: `--only H1 V0`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.attacks.arena import arena
from tests.attacks.groups import GROUPS, Group
from tests.attacks.row import NotThere, Outcome
from tests.attacks.runner import Runner


def run_group(group: Group, only: Sequence[str]) -> list[Outcome]:
    rows = [row for row in group.rows if not only or row.id.startswith(tuple(only))]
    outcomes: list[Outcome] = []
    if not rows:
        return outcomes
    with tempfile.TemporaryDirectory() as folder, arena(Path(folder), group.setting, is_full=True) as built:
        runner = Runner(built)
        for row in rows:
            outcome = runner.run(row)
            outcomes.append(outcome)
            mark = "ok  " if outcome.passed else "FAIL"
            sys.stdout.write(f"{mark} {row.id} {row.name} {outcome.seconds:.2f} s {outcome.problems or ''}\n")
            sys.stdout.flush()
    return outcomes


def report(outcomes: Sequence[Outcome], not_there: Sequence[NotThere]) -> dict[str, Any]:
    """An id of the list passes if all its cases do."""
    ids = Counter(outcome.row.id for outcome in outcomes)
    failed_ids = {outcome.row.id for outcome in outcomes if not outcome.passed}
    return {
        "rows_passed": len(ids) - len(failed_ids),
        "rows_total": len(ids),
        "cases_passed": sum(outcome.passed for outcome in outcomes),
        "cases_total": len(outcomes),
        "engine_restarts": sum(outcome.restarts for outcome in outcomes),
        "leaked_blocks": sum(outcome.leaked_blocks for outcome in outcomes),
        "max_loop_stall_ms": round(max((outcome.stall_ms for outcome in outcomes), default=0.0), 1),
        "golden_victim_streams": sum(outcome.num_victims for outcome in outcomes),
        "not_there_yet": {f"{row.id} {row.name}": row.reason for row in not_there},
        "cases": [_case(outcome) for outcome in outcomes],
    }


def _case(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.row.id,
        "name": outcome.row.name,
        "expected": outcome.row.expected,
        "passed": outcome.passed,
        "seconds": round(outcome.seconds, 3),
        "loop_stall_ms": round(outcome.stall_ms, 1),
        **({"problems": outcome.problems} if outcome.problems else {}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers end with us
    outcomes = [outcome for group in GROUPS for outcome in run_group(group, options.only)]
    result = report(outcomes, [row for group in GROUPS for row in group.not_there])
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(result, indent=1) + "\n")
    has_passed = result["cases_passed"] == result["cases_total"]
    short = {name: value for name, value in result.items() if name not in ("cases", "not_there_yet")}
    sys.stdout.write(f"{json.dumps(short)}\n{'PASS' if has_passed else 'FAIL'} attacks\n")
    return 0 if has_passed else 1


if __name__ == "__main__":
    sys.exit(main())
