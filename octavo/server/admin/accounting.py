"""What GET /accounting says: all that is held now. A quiet server holds what it held at its start."""

from __future__ import annotations

import asyncio
import os
import threading

import psutil

from octavo.observe.loop_lag import LoopLag
from octavo.server.admin.port import AdminPort
from octavo.server.admin.schema import Accounting
from octavo.server.lifecycle import Lifecycle


def accounting(engine: AdminPort, lifecycle: Lifecycle, loop_lag: LoopLag) -> Accounting:
    """Read it. The longest lag is forgotten with this: the next answer tells that of the time from now on."""
    stats = engine.stats()
    process = psutil.Process()
    lag, busy = loop_lag.worst()
    return Accounting(
        answering=lifecycle.num_active,
        open_requests=len(engine.open_request_ids()),
        running=stats.num_running,
        waiting=stats.num_waiting,
        kv_blocks=stats.num_blocks,
        kv_blocks_held=stats.num_blocks - stats.num_free_blocks,
        kv_blocks_cached=stats.num_cached_blocks,
        core_restarts=stats.core_restarts,
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        descriptors=len(os.listdir("/proc/self/fd")) - 1,  # less the one that lists them
        children=len(process.children(recursive=True)),
        resident_bytes=process.memory_info().rss,
        longest_lag_s=round(lag, 4),
        longest_busy_s=round(busy, 4),
    )
