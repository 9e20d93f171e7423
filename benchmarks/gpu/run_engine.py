"""What every engine's script does: start the engine, warm it up, time the workloads, save after each."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.gpu.machine import are_empty, seconds_since_process_start
from benchmarks.gpu.measure import Engine, measure, warm_up
from benchmarks.gpu.results import ResultFile, now, rounded
from benchmarks.gpu.shapes import SHAPES, Shape, write_model

OFFLINE = ("W2", "W5", "W1", "W3", "W4")
"""In this order: what is looked at most comes first."""

MAX_ERROR_LENGTH = 500

E = TypeVar("E", bound=Engine)


@dataclass(frozen=True, kw_only=True)
class Subject(Generic[E]):
    """An engine that can be measured."""

    name: str
    load: Callable[[Path, Mapping[str, Any]], E]
    """Model folder and engine options to an engine that is ready."""
    version: Callable[[E], str]
    cache_folders: Callable[[], list[Path]]
    """Where it keeps what it compiled: a start with all of them empty is a cold one."""
    profile: Callable[[E, Shape], dict[str, Any]] | None = None
    facts: Callable[[E], dict[str, Any]] | None = None
    """What the engine says of its own start."""


def main(subject: Subject[E], argv: Sequence[str] | None = None) -> int:
    """The number of workloads that failed."""
    arguments = _parse(subject, argv)
    shape = SHAPES[arguments.shape]
    engine, start = _start(subject, shape, dict(arguments.set))
    print("start", json.dumps(rounded(start)), flush=True)
    file = ResultFile(arguments.out)
    file.put(subject.name, shape.name, "version", subject.version(engine))
    file.add_start(subject.name, shape.name, start)

    def attempt(key: str, work: Callable[[], dict[str, Any]]) -> bool:
        return _attempt(file, subject.name, shape, key, work)

    timed = [name for name in arguments.only.split(",") if name]
    if timed:
        began = time.perf_counter()
        warm_up(engine, shape.vocab_size)
        print(f"warm-up {time.perf_counter() - began:.1f} s", flush=True)
    failed = 0
    for name in timed:
        failed += not attempt(name, partial(measure, engine, name, shape.vocab_size, arguments.reps))
    if arguments.profile and subject.profile is not None:
        failed += not attempt("profile", partial(subject.profile, engine, shape))
    return failed


def _start(subject: Subject[E], shape: Shape, options: Mapping[str, Any]) -> tuple[E, dict[str, Any]]:
    """The engine, and what is to be kept of its start. Nothing slow may come before it."""
    is_cold = are_empty(subject.cache_folders())
    folder = write_model(shape, Path(tempfile.gettempdir()) / "benchmark-shapes")
    began = time.perf_counter()
    engine = subject.load(folder, options)
    start = {
        "ready_s": seconds_since_process_start(),
        "constructor_s": time.perf_counter() - began,
        "is_cold": is_cold,
        "at": now(),
        "options": dict(options),
        **(subject.facts(engine) if subject.facts is not None else {}),
    }
    return engine, start


def _attempt(
    file: ResultFile, engine: str, shape: Shape, key: str, work: Callable[[], dict[str, Any]]
) -> bool:
    """Do and save one thing. A failure is saved and told; the next thing still gets its turn."""
    began = time.perf_counter()
    try:
        found = work()
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]}
    found["at"] = now()
    file.put(engine, shape.name, key, found)
    if key != "profile" or "error" in found:
        seconds = time.perf_counter() - began
        print(f"{key} {shape.name} {engine} {seconds:.1f} s {json.dumps(rounded(found))}", flush=True)
    return "error" not in found


def _parse(subject: Subject[E], argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Time {subject.name} on the offline workloads.")
    parser.add_argument("--shape", required=True, choices=list(SHAPES))
    parser.add_argument("--out", required=True, type=Path, help="result file; added to if it exists")
    parser.add_argument("--only", default=",".join(OFFLINE), help="workloads, comma between; '' for none")
    parser.add_argument("--reps", type=int, default=3, help="timed repetitions of each")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help="an option of the engine; the value is read as JSON, else as text; may be repeated",
    )
    if subject.profile is not None:
        parser.add_argument("--profile", action="store_true", help="say where a decode step goes")
    else:
        parser.set_defaults(profile=False)
    return parser.parse_args(argv)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
