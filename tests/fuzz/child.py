"""One target in a process of its own: `python -m tests.fuzz.child NAME FOLDER --engine ... --seconds ...`.

Started by tests.fuzz.run. Engine `atheris` is guided by the branches that inputs take; `plain` mutates
without knowing, and needs nothing installed.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import resource
import sys
import time
from itertools import count
from pathlib import Path
from random import Random

from tests.fuzz.recorder import Recorder
from tests.fuzz.target import Run, Target, find, inputs_of
from tests.fuzz.watch import WAIT_FACTOR, watched

POPULATION = 2000
GROWN_OLD = 75
"""Status of a process that ends because a hundred thousand inputs have left something behind in libraries."""
LOOKED_AT_EVERY = 500
"""Inputs."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", choices=("atheris", "plain"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    wish = parser.parse_args()
    wish.folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.CRITICAL)
    faulthandler.enable()
    (_with_atheris if wish.engine == "atheris" else _plainly)(wish)


def _recorder(name: str, target: Target, folder: Path) -> Recorder:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    run = watched(target.open(scratch), target.input_s)
    _bound_memory(target.memory_bytes)
    return Recorder(_until_old(run, target.memory_bytes // 2), folder, target.max_bytes)


def _until_old(run: Run, more_bytes: int) -> Run:
    """Ends the process before what was left by all inputs together is taken for what one of them takes."""
    began, number = _mapped_bytes(), count(1)

    def bounded_run(data: bytes) -> None:
        if next(number) % LOOKED_AT_EVERY == 0 and _mapped_bytes() > began + more_bytes:
            os._exit(GROWN_OLD)
        run(data)

    return bounded_run


def _plainly(wish: argparse.Namespace) -> None:
    target = find(wish.name)
    recorder = _recorder(wish.name, target, wish.folder)
    rng = Random(wish.seed)
    inputs = inputs_of(wish.name, target)
    end = time.monotonic() + wish.seconds
    for data in inputs:
        _waited_for(recorder, data, target.input_s)
    while time.monotonic() < end:
        data = target.mutate(rng.choice(inputs), rng)[: target.max_bytes]
        _waited_for(recorder, data, target.input_s)
        # Walks away from the seeds: some of what was made is mutated again.
        if rng.random() < 0.05:
            if len(inputs) < POPULATION:
                inputs.append(data)
            else:
                inputs[rng.randrange(len(inputs) // 2, len(inputs))] = data


def _waited_for(recorder: Recorder, data: bytes, limit_s: float) -> None:
    # Whoever ends the process, the parent finds the input in `current`.
    faulthandler.dump_traceback_later(WAIT_FACTOR * limit_s, exit=True)
    recorder(data)
    faulthandler.cancel_dump_traceback_later()


def _with_atheris(wish: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=_instrumented(wish.name), enable_loader_override=False):
        target = find(wish.name)
        recorder = _recorder(wish.name, target, wish.folder)
        for data in inputs_of(wish.name, target):
            recorder(data)
    corpus, seeds = wish.folder / "corpus", wish.folder / "seeds"
    for folder in (corpus, seeds):
        folder.mkdir(exist_ok=True)
    for index, data in enumerate(inputs_of(wish.name, target)):
        (seeds / f"{index:04}").write_bytes(data[: target.max_bytes])

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        changed = atheris.Mutate(data, max_size) if rng.random() < 0.2 else target.mutate(data, rng)
        return bytes(changed[:max_size])

    flags = {
        "max_total_time": max(1, round(wish.seconds)),
        "max_len": target.max_bytes,
        "len_control": 0,
        "timeout": round(WAIT_FACTOR * target.input_s),
        "rss_limit_mb": 0,  # RLIMIT_AS does it
        "seed": wish.seed,
        "artifact_prefix": f"{wish.folder}/scratch/",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), str(corpus), str(seeds)]
    atheris.Setup(arguments, recorder, custom_mutator=mutate)
    atheris.Fuzz()


def _instrumented(name: str) -> list[str]:
    # The target's own modules are found without loading it: they are named in its text.
    return ["octavo", "jinja2"] if "template" in name or name.startswith("chat") else ["octavo"]


def _bound_memory(more_bytes: int) -> None:
    """A bomb becomes a MemoryError, or the end of this process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        return  # It maps terabytes that it never uses.
    limit = _mapped_bytes() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
