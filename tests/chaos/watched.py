"""`octavo ...` that also tells what it holds: SIGRTMIN writes a line of JSON to the file of OCTAVO_HOLDINGS.

    OCTAVO_HOLDINGS=/tmp/holdings python -m tests.chaos.watched serve MODEL

What is counted cannot be seen from outside: asyncio tasks, Python objects. The program itself is unchanged.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from octavo.cli.main import main


def tell_holdings(_number: int, _frame: FrameType | None) -> None:
    """Runs in the main thread, where the event loop is."""
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:  # The loop has not begun, or has ended.
        tasks = 0
    gc.collect()
    holdings = {"tasks": tasks, "threads": threading.active_count(), "objects": len(gc.get_objects())}
    file = Path(os.environ["OCTAVO_HOLDINGS"])
    part = file.with_suffix(".part")
    part.write_text(json.dumps(holdings))
    part.rename(file)


if __name__ == "__main__":
    signal.signal(signal.SIGRTMIN, tell_holdings)
    sys.exit(main())
