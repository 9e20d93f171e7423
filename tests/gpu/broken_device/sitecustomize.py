"""Python runs this first. Once OCTAVO_TEST_BREAK_DEVICE is a file, a kernel reads where nothing is."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path


def _wait_and_break(asked: Path) -> None:
    while True:
        time.sleep(0.01)
        torch = sys.modules.get("torch") if asked.exists() else None
        if torch is not None and torch.cuda.is_initialized():
            with contextlib.suppress(FileNotFoundError):
                asked.unlink()
                torch.zeros(4, device="cuda")[torch.tensor([1 << 40], device="cuda")]
                return


if os.environ.get("OCTAVO_TEST_BREAK_DEVICE"):
    asked = Path(os.environ["OCTAVO_TEST_BREAK_DEVICE"])
    threading.Thread(target=_wait_and_break, args=(asked,), daemon=True).start()
