"""Runs the stages of the benchmark as processes, each with its environment, all under one deadline."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gpu.machine import wait_for_free_gpu
from benchmarks.gpu.run_vllm import ENVIRONMENT as VLLM_ENVIRONMENT

LEAST_S = 20.0
"""With less time left no stage is started."""

GRACE_S = 30.0
"""Between asking a stage to end and ending it: a server has to be stopped in between."""

MAX_SHOWN = 400
TAIL = 25
_SHOWN = re.compile(r"(start |warm-up |server ready |W[1-6] |profile |== |ok   |FAIL )")
_SHOWN_PROFILE = re.compile(r"   +\S")


class Stages:
    """Starts one stage after the other until the time is up. All output is logged, its gist is shown."""

    def __init__(self, log: Path, budget_s: float, peer_path: Path | None) -> None:
        self.log = log
        self.failed: list[str] = []
        self._deadline = time.monotonic() + budget_s
        self._peer_path = peer_path
        log.parent.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, module: str, *arguments: str, engine: str = "octavo", shape: str = "") -> None:
        """Run a module of this folder. A failure is noted and shown; the next stage still gets its turn."""
        left = self._deadline - time.monotonic()
        if left < LEAST_S:
            self._note(name, f"not run: {left:.0f} s are left")
            return
        if not wait_for_free_gpu():
            print("the GPU's memory is in use by another program: numbers may suffer", flush=True)
        print(f"-- {name} ({left:.0f} s left)", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.gpu.{module}", *arguments]
        status, tail = self._follow(command, self.environment(engine, shape), left)
        if status:
            print("\n".join(line[:MAX_SHOWN] for line in tail), flush=True)
            self._note(name, f"ended with status {status} after {time.monotonic() - began:.0f} s")

    def environment(self, engine: str, shape: str) -> dict[str, str]:
        """Each engine and shape compiles into folders of its own, so that a first start is a cold one."""
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        if not shape:
            return variables
        caches = Path(tempfile.gettempdir()) / "benchmark-caches" / f"{engine}-{shape}"
        variables["TRITON_CACHE_DIR"] = str(caches / "triton")
        if engine == "vllm":
            variables |= VLLM_ENVIRONMENT
            variables["VLLM_CACHE_ROOT"] = str(caches / "vllm")
            variables["TORCHINDUCTOR_CACHE_DIR"] = str(caches / "inductor")
            if self._peer_path is not None:
                variables["PYTHONPATH"] = str(self._peer_path)
        return variables

    def _follow(
        self, command: list[str], variables: Mapping[str, str], limit_s: float
    ) -> tuple[int, list[str]]:
        """Exit status and last lines. After `limit_s` the process and its children are asked to end."""
        tail: list[str] = []
        with self.log.open("a") as log:
            print(f"$ {' '.join(command)}", file=log, flush=True)
            process = subprocess.Popen(
                command,
                env=dict(variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            timers = [
                threading.Timer(limit_s, _signal_group, [process.pid, signal.SIGTERM]),
                threading.Timer(limit_s + GRACE_S, _signal_group, [process.pid, signal.SIGKILL]),
            ]
            for timer in timers:
                timer.start()
            assert process.stdout is not None, "asked for a pipe"
            for line in process.stdout:
                log.write(line)
                tail = [*tail[-TAIL:], line.rstrip()]
                if _SHOWN.match(line) or ("--profile" in command and _SHOWN_PROFILE.match(line)):
                    print(line.rstrip()[:MAX_SHOWN], flush=True)
            status = process.wait()
            for timer in timers:
                timer.cancel()
        return status, tail

    def _note(self, name: str, what: str) -> None:
        self.failed.append(f"{name}: {what}")
        print(f"!! {name}: {what}", flush=True)


def _signal_group(pid: int, which: signal.Signals) -> None:
    try:
        os.killpg(pid, which)
    except ProcessLookupError:
        return
