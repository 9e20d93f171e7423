"""The whole benchmark on one machine: is it right, how fast is it beside vLLM, what may be claimed.

    python -m benchmarks.gpu.main --out OUT --peer-path /tmp/peer_site --peer-archive .peer/peer.tar.xz

Per shape the engines take turns. Every stage is a process of its own and saves after every workload to
OUT/results.json; calls add to that file, so the work can be spread over several calls on one machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.gpu import compare
from benchmarks.gpu.run_engine import OFFLINE
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.stages import Stages

ENGINES = ("octavo", "vllm")
STAGES = ("check", "offline", "server", "profile", "compare")


def main(argv: Sequence[str] | None = None) -> int:
    """The number of stages that failed or were not reached."""
    arguments = _parse(argv)
    wanted = [stage for stage in arguments.stages if not (stage == "server" and arguments.no_server)]
    if "vllm" in arguments.engines and {"offline", "server"} & set(wanted):
        unpack_peer(arguments.peer_archive, arguments.peer_path)
    results = arguments.out / "results.json"
    stages = Stages(arguments.out / "log.txt", arguments.minutes * 60, arguments.peer_path)
    if "check" in wanted:
        model = ("--model", str(arguments.model)) if arguments.model else ()
        stages.run("check", "check", "--out", str(results), *model)
    for shape in arguments.shapes:
        for engine in arguments.engines if "offline" in wanted else ():
            _offline(stages, engine, shape, results, arguments)
        for engine in arguments.engines if "server" in wanted else ():
            _server(stages, engine, shape, results, arguments)
        if "profile" in wanted:
            where = ("--shape", shape, "--out", str(results))
            options = _repeated("--set", arguments.set)
            name = f"profile {shape}"
            stages.run(name, "run_octavo", *where, "--only", "", "--profile", *options, shape=shape)
    if "compare" in wanted and results.exists():
        save = arguments.save or arguments.out / "h100.json"
        compare.main(
            [*map(str, [*arguments.merge, results]), "--save", str(save)]
            + (["--commit", arguments.commit] if arguments.commit else [])
        )
    for line in stages.failed:
        print(f"!! {line}")
    return len(stages.failed)


def unpack_peer(archive: Path | None, folder: Path | None) -> None:
    """Once: an archive made where there is a package index, with what vLLM needs beside torch."""
    if archive is None or folder is None or (folder / "vllm" / "__init__.py").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("xz"):
        subprocess.run(["tar", "-I", "xz -T0", "-C", str(folder), "-xf", str(archive)], check=True)
        return
    with tarfile.open(archive) as packed:  # slower, and always there
        packed.extractall(folder, filter="data")


def _offline(stages: Stages, engine: str, shape: str, results: Path, arguments: argparse.Namespace) -> None:
    options = _repeated("--set", arguments.set) if engine == "octavo" else []
    stages.run(
        f"offline {shape} {engine}",
        f"run_{engine}",
        *("--shape", shape, "--out", str(results), "--only", arguments.only, "--reps", str(arguments.reps)),
        *options,
        engine=engine,
        shape=shape,
    )


def _server(stages: Stages, engine: str, shape: str, results: Path, arguments: argparse.Namespace) -> None:
    flags = _repeated("--flag", arguments.flag) if engine == "octavo" else []
    stages.run(
        f"server {shape} {engine}",
        "run_server",
        *("--engine", engine, "--shape", shape, "--out", str(results)),
        *("--reps", str(arguments.server_reps), "--log", str(stages.log)),
        *flags,
        engine=engine,
        shape=shape,
    )


def _repeated(flag: str, values: list[str]) -> list[str]:
    return [f"{flag}={value}" for value in values]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and log.txt")
    parser.add_argument("--stages", type=_list_of(STAGES), default=["check", "offline", "server", "compare"])
    parser.add_argument("--shapes", type=_list_of(SHAPES), default=list(SHAPES))
    parser.add_argument("--engines", type=_list_of(ENGINES), default=list(ENGINES))
    parser.add_argument("--only", default=",".join(OFFLINE), help="offline workloads, comma between")
    parser.add_argument("--reps", type=int, default=3, help="timed repetitions, offline")
    parser.add_argument("--server-reps", type=int, default=2, help="timed repetitions, server")
    parser.add_argument("--no-server", action="store_true", help="leave W6 out")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing after them, end what runs")
    parser.add_argument("--peer-path", type=Path, help="folder with vLLM; without it, as it is installed")
    parser.add_argument("--peer-archive", type=Path, help="unpacked there first, if vLLM is not there")
    parser.add_argument("--model", type=Path, help="GGUF file of the default model, for the check")
    parser.add_argument(
        "--set", action="append", default=[], help="an option of Octavo, NAME=VALUE; repeatable"
    )
    parser.add_argument("--flag", action="append", default=[], help="a flag of Octavo's server, --flag=--x")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="earlier result files to add")
    parser.add_argument("--save", type=Path, help="where the claim goes; default OUT/h100.json")
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    return parser.parse_args(argv)


def _list_of(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads words with commas between, each one of `allowed`."""
    names = list(allowed)

    def read(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        for word in words:
            if word not in names:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(names)}")
        return words

    return read


if __name__ == "__main__":
    sys.exit(main())
