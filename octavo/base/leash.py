"""Leash: work on what strangers bring, done in processes that can be killed. One bad wish spoils one answer.

A helper takes a frame and gives one back (`leashed` is its side). One that takes too long, or dies of its
own limits, is killed and replaced; the wish it was at fails with LeashBroken. A wish is not to blame for a
machine that has no time for it: who did not get the processor is waited for longer.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from queue import SimpleQueue

import psutil

from octavo.base.env import without_secrets
from octavo.base.errors import EngineError, ErrorCode
from octavo.base.leashed import read_frame, write_frame

logger = logging.getLogger(__name__)

START_S = 60.0
MAX_WAITING = 256
FAIR_SHARE = 0.5
"""Of its time a helper has computed; with less, others had the processor."""
PATIENCE = 8
"""So many times its limit a helper without the processor may take."""


class LeashBroken(Exception):
    """The helper spent all it may on this frame."""


class Leash:
    """At most `num_helpers` processes of one kind, a thread beside each. Thread-safe.

    They start with the first frame, all of them: nobody waits for a start after a bomb.
    """

    def __init__(
        self, module: str, *, wall_s: float, first_frame: Callable[[], bytes] = bytes, num_helpers: int = 2
    ) -> None:
        """module: run as `python -m`. first_frame: made once, in a thread; what each helper begins with.

        wall_s: for one frame, if the machine has time for it.
        """
        self._module = module
        self._wall_s = wall_s
        self._make_first_frame = first_frame
        self._num_helpers = num_helpers
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[bytes, Future[bytes]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._helpers: set[_Helper] = set()
        self._is_closed = False

    def ask(self, frame: bytes) -> Future[bytes]:
        """The answer to come, or LeashBroken, or EngineError where no helper can be started or computes.

        Raises EngineError when too many wait.
        """
        with self._lock:
            if self._is_closed:
                raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)
            if self._jobs.qsize() >= MAX_WAITING:
                raise EngineError(
                    "Too many requests wait to be checked. Try again soon.", code=ErrorCode.OVERLOADED
                )
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._serve, name=f"leash-{number}", daemon=True)
                    for number in range(self._num_helpers)
                ]
                for thread in self._threads:
                    thread.start()
            answer: Future[bytes] = Future()
            self._jobs.put((frame, answer))  # Before what tells the threads to end, or not at all.
        return answer

    def close(self) -> None:
        """End all helpers. Idempotent. Waits for a moment: call it in a thread."""
        with self._lock:
            self._is_closed = True
            helpers, threads = list(self._helpers), self._threads
        for _ in threads:
            self._jobs.put(None)
        for helper in helpers:
            helper.kill()
        for thread in threads:
            thread.join(timeout=5)

    def _serve(self) -> None:
        helper = self._stand_by()
        while (job := self._jobs.get()) is not None:
            frame, answer = job
            if not answer.set_running_or_notify_cancel():
                continue
            if helper is not None and helper.is_dead:
                # Killed by the system, say, while it had nothing to do.
                self._end(helper)
                helper = None
            try:
                helper = helper or self._start()
                answer.set_result(helper.ask(frame, self._wall_s, PATIENCE))
            except BaseException as error:
                answer.set_exception(error)
                if helper is not None:
                    self._end(helper)
                helper = self._stand_by()
        if helper is not None:
            self._end(helper)

    def _stand_by(self) -> _Helper | None:
        """A helper before there is work for it. Whoever needs one will be told why there is none."""
        try:
            return self._start()
        except Exception as error:
            if not self._is_closed:
                logger.warning("A helper process did not start: %s", error)
            return None

    def _start(self) -> _Helper:
        first = self._first_frame
        with self._lock:
            if self._is_closed:
                raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)
            helper = _Helper(self._module)
            self._helpers.add(helper)
        try:
            helper.ask(first, START_S, patience=1)
        except (LeashBroken, EngineError):
            self._end(helper)
            raise EngineError(f"A helper process ({self._module}) did not start.") from None
        return helper

    @cached_property
    def _first_frame(self) -> bytes:
        return self._make_first_frame()

    def _end(self, helper: _Helper) -> None:
        self._helpers.discard(helper)
        helper.kill()
        helper.reap()


class _Helper:
    """Our end of one process. Used by one thread, killed by any."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=without_secrets(),
        )
        self._usage = psutil.Process(self._process.pid)
        self._is_killed = False

    @property
    def is_dead(self) -> bool:
        """Or dying: its last answer may have come all the same."""
        return self._is_killed or self._process.poll() is not None

    def ask(self, frame: bytes, limit_s: float, patience: int) -> bytes:
        """The answer. Raises LeashBroken, and OVERLOADED where the machine had no time to make one.

        patience: see PATIENCE.
        """
        sink, source = self._process.stdin, self._process.stdout
        assert sink is not None and source is not None, "both are pipes"
        watch = _Watch(self, limit_s, patience)
        watch.start()
        try:
            write_frame(sink, frame)
            answer = read_frame(source)
        except OSError:
            answer = None
        finally:
            watch.end()
        if answer is not None:
            return answer
        if watch.was_in_vain:
            raise EngineError(
                "The machine is too busy to check the request. Try again soon.", code=ErrorCode.OVERLOADED
            )
        raise LeashBroken

    def computed_s(self) -> float:
        """Processor time so far."""
        try:
            times = self._usage.cpu_times()
        except psutil.Error:
            return 0.0  # It is gone: nobody waits for it.
        return times.user + times.system

    def kill(self) -> None:
        self._is_killed = True
        self._process.kill()

    def reap(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "both are pipes"
            try:
                pipe.close()
            except OSError:
                continue  # What was not sent is of no use now.
        self._process.wait()


class _Watch:
    """Kills a helper that has had its time. `end` it, whatever comes of the frame."""

    def __init__(self, helper: _Helper, limit_s: float, patience: int) -> None:
        self._helper = helper
        self._limit_s = limit_s
        self._patience = patience
        self._began_s = helper.computed_s()
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        """Over or killed: what comes first is true."""
        self._thread = threading.Thread(target=self._run, name="leash-watch", daemon=True)
        self.was_in_vain = False
        """It was killed though it had hardly computed."""

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        with self._lock:
            self._is_over.set()

    def _run(self) -> None:
        for _ in range(self._patience):
            if self._is_over.wait(self._limit_s):
                return
            if self._helper.computed_s() - self._began_s >= FAIR_SHARE * self._limit_s:
                self._kill(was_in_vain=False)
                return
        self._kill(was_in_vain=True)

    def _kill(self, *, was_in_vain: bool) -> None:
        """Not if it has answered meanwhile: the next frame would be blamed."""
        with self._lock:
            if not self._is_over.is_set():
                self.was_in_vain = was_in_vain
                self._helper.kill()
