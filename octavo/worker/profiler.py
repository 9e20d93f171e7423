"""Profiler: torch's, from one order to the next, written as a trace that browsers' trace viewers read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from octavo.base.errors import EngineError, RequestError


class Profiler:
    """Records the thread that starts it, which must also stop it, and all that happens on the GPU."""

    def __init__(self) -> None:
        self._running: profile | None = None

    def start(self) -> None:
        if self._running is not None:
            raise RequestError("A profile is being recorded already; stop it first.")
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        running = profile(activities=activities)
        running.start()
        self._running = running

    def stop(self, folder: str) -> str:
        """Write the trace into `folder`, made if missing. Returns the file's name."""
        running, self._running = self._running, None
        if running is None:
            raise RequestError("No profile is being recorded; start one first.")
        running.stop()
        name = f"octavo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json.gz"
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            running.export_chrome_trace(str(Path(folder) / name))
        except OSError as error:
            raise EngineError(f"The profile cannot be written to profile_dir: {error.strerror}.") from error
        return name
