"""InlineExecutor: one worker in the caller's process and thread. The default on one device."""

from __future__ import annotations

from collections import deque

from octavo.messages.kv import KVPlan
from octavo.messages.result import StepOutput
from octavo.messages.start import WorkerFacts
from octavo.messages.step import SchedulerOutput
from octavo.worker.profiler import Profiler
from octavo.worker.runner import PendingStep
from octavo.worker.worker import Worker


class InlineExecutor:
    """A GPU works on a step while the caller goes on; on a CPU the caller's thread does the work itself."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._profiler = Profiler()
        self._submitted: deque[PendingStep] = deque()

    def start(self) -> WorkerFacts:
        return self._worker.load()

    def allocate(self, plan: KVPlan) -> dict[str, float]:
        return self._worker.allocate(plan)

    def submit(self, step: SchedulerOutput) -> None:
        self._submitted.append(self._worker.submit(step))

    def collect(self) -> StepOutput:
        return self._worker.finish(self._submitted.popleft())

    def sleep(self, level: int) -> None:
        self._worker.sleep(level)

    def wake_up(self) -> None:
        self._worker.wake_up()

    def start_profile(self) -> None:
        self._profiler.start()

    def stop_profile(self, folder: str) -> str:
        return self._profiler.stop(folder)

    def shutdown(self) -> None:
        self._submitted.clear()
        self._worker.shutdown()
