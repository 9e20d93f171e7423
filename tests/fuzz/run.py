"""Fuzzing as a command: each target in its own process, for as long as one likes.

    python -m tests.fuzz.run --seconds 1800 --jobs 16 --out fuzz.json [TARGET ...]

Inputs that fail are kept with the command that repeats them. Ends with a JSON result and a line PASS or FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from tests.fuzz.child import GROWN_OLD
from tests.fuzz.recorder import Progress, failures_in, keep_failure
from tests.fuzz.target import NAMES

ROOT = Path(__file__).parents[2]
KNOWN = [*NAMES, "aging", "broken", []]
"""And two that show what this does; no name stands for all NAMES."""
MAX_DEATHS = 20
"""Of one target's processes, before it is left alone."""
START_S = 120.0
COVERED = re.compile(rb"cov: (\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", choices=[*NAMES, "aging", "broken", []], default=[], metavar="TARGET"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="side by side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON result goes beside standard output")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz", help="corpora, failures, logs")
    parser.add_argument("--engine", choices=("atheris", "plain"), help="default: atheris if it is installed")
    wish = parser.parse_args()
    wish.engine = wish.engine or ("atheris" if find_spec("atheris") else "plain")
    wish.targets = wish.targets or list(NAMES)
    result = asyncio.run(_all(wish))
    if wish.out is not None:
        wish.out.write_text(json.dumps(result, indent=1))
    sys.stdout.write(f"{json.dumps(result, indent=1)}\n{'PASS' if result['passed'] else 'FAIL'} fuzz\n")
    sys.exit(0 if result["passed"] else 1)


async def _all(wish: argparse.Namespace) -> dict[str, Any]:
    free = asyncio.Semaphore(wish.jobs)

    async def one(name: str) -> tuple[str, dict[str, Any]]:
        async with free:
            found = await _Campaign(name, wish).run()
            sys.stderr.write(f"{name}: {found['runs']} runs, {len(found['crashes'])} crashes\n")
            return name, found

    targets = dict(await asyncio.gather(*map(one, wish.targets)))
    passed = all(not found["crashes"] and found["runs"] for found in targets.values())
    return {"engine": wish.engine, "seed": wish.seed, "passed": passed, "targets": targets}


class _Campaign:
    """One target, in one process after another: a new one each time that one dies."""

    def __init__(self, name: str, wish: argparse.Namespace) -> None:
        self._name = name
        self._wish = wish
        self._folder: Path = wish.work / name
        self._runs = 0
        self._slowest_s = 0.0
        self._cpu_s = 0.0
        self._coverage = 0

    async def run(self) -> dict[str, Any]:
        shutil.rmtree(self._folder / "failures", ignore_errors=True)
        (self._folder / "failures").mkdir(parents=True)
        began = time.monotonic()
        end = began + self._wish.seconds
        deaths = 0
        for life in count():
            left = end - time.monotonic()
            if life and left < 2:
                break
            status = await self._live(life, left)
            deaths += status not in (0, GROWN_OLD)
            if status == 0 or deaths == MAX_DEATHS:
                break
        return {
            "runs": self._runs,
            "seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(self._cpu_s, 1),
            "slowest_s": round(self._slowest_s, 3),
            **({"coverage": self._coverage} if self._coverage else {}),
            "crashes": [
                {**failure, "repeat": f"python -m tests.fuzz.repeat {self._name} {failure['input']}"}
                for failure in failures_in(self._folder)
            ],
        }

    async def _live(self, life: int, seconds: float) -> int:
        """Its process's status: 0 if it lived to its end."""
        (self._folder / "progress").unlink(missing_ok=True)
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)
        log = self._folder / f"log.{life}"
        command = [sys.executable, "-m", "tests.fuzz.child", self._name, str(self._folder.absolute())]
        command += ["--engine", self._wish.engine, "--seconds", str(seconds)]
        command += ["--seed", str(self._wish.seed + life)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "RUST_BACKTRACE": "0",
        }
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env=environment,
                stdout=sink,
                stderr=sink,
                stdin=asyncio.subprocess.DEVNULL,
            )
            try:
                status = await asyncio.wait_for(process.wait(), seconds + START_S)
            except TimeoutError:
                # A slow machine. Inputs that hang are found by the watch in the process itself.
                process.kill()
                await process.wait()
                status = 0
            except asyncio.CancelledError:
                process.kill()
                raise
        said, progress = log.read_bytes(), Progress.of(self._folder)
        self._runs += progress.runs
        self._cpu_s += progress.cpu_s
        self._slowest_s = max(self._slowest_s, progress.slowest_s)
        self._coverage = max([self._coverage, *map(int, COVERED.findall(said)[-1:])])
        if status not in (0, GROWN_OLD):
            story = said[-6000:].decode("utf-8", "replace")
            what = f"the process ended with {status}"
            keep_failure(self._folder / "failures", progress.current, what, story)
        return status


if __name__ == "__main__":
    main()
