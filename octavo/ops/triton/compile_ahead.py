"""Compile kernels several at a time, before they are needed.

A kernel takes about half a second to compile and holds Python's lock for most of it, so threads do not
help: other processes compile into the cache on disk, and this one finds everything there. What to compile
is learnt by calling the kernels once while Triton is told to skip both compilation and launch.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

import triton

from octavo.ops.triton.compile_worker import compile_one

logger = logging.getLogger(__name__)

CACHED_S = 0.2
"""A kernel that is on disk is there in less."""
FEWEST = 4
"""So many kernels are worth the start of other processes (about 3 s, most of it importing torch)."""
MOST_PROCESSES = 12

Task = str
"""JSON: which kernel, for which arguments, options and GPU (see compile_worker.py)."""


def record(calls: Sequence[Callable[[], object]]) -> list[Task]:
    """What calling these would compile in this process. Kernels are not run; all else is."""
    tasks: dict[Task, None] = {}
    target = triton.runtime.driver.active.get_current_target()
    gpu = {"backend": target.backend, "arch": target.arch, "warp_size": target.warp_size}

    def skip(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        what = {"module": fn.module, "name": fn.name, "gpu": gpu, "data": compile["specialization_data"]}
        tasks[json.dumps(what)] = None
        return True

    before = triton.knobs.runtime.jit_cache_hook
    triton.knobs.runtime.jit_cache_hook = skip
    try:
        for call in calls:
            call()
    finally:
        triton.knobs.runtime.jit_cache_hook = before
    return list(tasks)


def compile_ahead(tasks: Sequence[Task]) -> None:
    """Put these kernels on disk, if they are not there. The first one tells whether that takes time."""
    if not tasks:
        return
    began = time.monotonic()
    compile_one(tasks[0])
    if time.monotonic() - began < CACHED_S or len(tasks) < FEWEST:
        return
    num_processes = min(MOST_PROCESSES, len(tasks) - 1, max(_usable_cpus() - 1, 1))
    waiting: SimpleQueue[Task] = SimpleQueue()
    for task in tasks[1:]:
        waiting.put(task)
    with ThreadPoolExecutor(num_processes) as threads:
        list(threads.map(lambda _: _feed_process(waiting), range(num_processes)))
    seconds = time.monotonic() - began
    logger.info("Compiled %d kernels in %.1f s, %d at a time.", len(tasks), seconds, num_processes)


def _feed_process(waiting: SimpleQueue[Task]) -> None:
    """Give one process task after task. What it cannot do is compiled here, when it is first called."""
    command = [sys.executable, "-m", "octavo.ops.triton.compile_worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None, "asked for pipes"
        try:
            while True:
                process.stdin.write(waiting.get_nowait() + "\n")
                process.stdin.flush()
                if not process.stdout.readline():
                    logger.warning("A process that compiles kernels ended early; this one compiles the rest.")
                    return
        except (Empty, OSError):
            return


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
