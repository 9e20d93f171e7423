"""Compile kernels several at a time, before they are needed.

A kernel takes about half a second to compile and holds Python's lock for most of it, so threads do not
help: other processes compile into the cache on disk, and this one finds everything there. What to compile
is learnt by calling the kernels once while Triton is told to skip both compilation and launch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import triton
from triton.runtime.jit import JITFunction

from octavo.ops.triton.cache_keys import settle_cache_keys
from octavo.ops.triton.compile_worker import compile_one

logger = logging.getLogger(__name__)

FEWEST = 4
"""So many kernels are worth the start of another process (3 to 4 s, nearly all of it importing torch)."""
END_S = 10.0
"""A process that has nothing left to do is given so long to end."""

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
        with _all_is_new():
            for call in calls:
                call()
    finally:
        triton.knobs.runtime.jit_cache_hook = before
    return list(tasks)


@contextlib.contextmanager
def _all_is_new() -> Iterator[None]:
    """Let kernels that an earlier engine of this process has compiled be skipped like the others.

    The hook is asked about new kernels only, and one that ran would take for its input what the skipped ones
    before it have not written: indices of anything, say.
    """
    run = JITFunction.run
    empty: dict[JITFunction[Any], Any] = {}

    def run_as_new(kernel: JITFunction[Any], *arguments: Any, **options: Any) -> Any:
        known = kernel.device_caches
        if not any(caches[0] for caches in known.values()):
            return run(kernel, *arguments, **options)
        if kernel not in empty:
            empty[kernel] = defaultdict(kernel.create_binder)
        kernel.device_caches = empty[kernel]
        try:
            return run(kernel, *arguments, **options)
        finally:
            kernel.device_caches = known

    JITFunction.run = run_as_new
    try:
        yield
    finally:
        JITFunction.run = run


class KernelCompilers:
    """Compilers in other processes: one process imports what they need and forks them when work comes.

    It takes seconds to be ready; meanwhile this process compiles. Make it before any kernel is called; after
    that its methods may be called at any time.
    """

    def __init__(self) -> None:
        settle_cache_keys()
        self._process: subprocess.Popen[str] | None = None

    def start_if_all_is_new(self) -> None:
        """Be early where the cache on disk is empty: there will be work for sure."""
        folder = Path(triton.knobs.cache.dir)
        if not folder.is_dir() or next(folder.iterdir(), None) is None:
            self._start()

    def compile(self, tasks: Sequence[Task]) -> None:
        """Put these kernels on disk, if they are not there."""
        began = time.monotonic()
        waiting: SimpleQueue[Task] = SimpleQueue()
        for task in tasks:
            waiting.put(task)
        if not any(_compiles(task) for task in _drain(waiting)) or waiting.qsize() < FEWEST:
            return  # all was there, or the few that are left are compiled when they are called
        self._start()
        others = Thread(target=self._hand_over, args=(waiting,), name="octavo-compile")
        others.start()
        num_here = sum(_compiles(task) for task in _drain(waiting))
        others.join()
        seconds = time.monotonic() - began
        logger.info("Compiled kernels for %.1f s, %d of %d here.", seconds, 1 + num_here, len(tasks))

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None, "asked for pipes"
        with contextlib.suppress(OSError):  # it may be gone already
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _start(self) -> None:
        if self._process is None:
            command = [sys.executable, "-m", "octavo.ops.triton.compile_worker", str(_usable_cpus())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    def _hand_over(self, waiting: SimpleQueue[Task]) -> None:
        """Once the process is ready, give it all that is left, and wait until it is done."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            is_ready = bool(process.stdout.readline())
            left = list(_drain(waiting)) if is_ready else []
            process.stdin.write("".join(f"{task}\n" for task in left))
            process.stdin.close()
            if not process.stdout.readline():
                logger.warning("A process that compiles kernels ended early; this one compiles the rest.")
        except OSError:
            logger.warning("Kernels are compiled one after the other.", exc_info=True)


def _compiles(task: Task) -> bool:
    """Compile a kernel unless it is on disk. Returns whether it was not."""
    found: list[bool] = []
    before = triton.knobs.compilation.listener
    triton.knobs.compilation.listener = lambda *, cache_hit, **_: found.append(cache_hit)
    try:
        compile_one(task)
    finally:
        triton.knobs.compilation.listener = before
    return not all(found)


def _drain(waiting: SimpleQueue[Task]) -> Iterator[Task]:
    """What is left, one at a time: others take from it, too."""
    with contextlib.suppress(Empty):
        while True:
            yield waiting.get_nowait()


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
