"""Where an engine's core runs: in a process of its own, or in a thread of this one."""

from __future__ import annotations

from octavo.engine.core_client import CoreClient
from octavo.engine.core_process import ProcessCore


def make_core(in_process: bool) -> CoreClient:
    if not in_process:
        return ProcessCore()
    # These import torch, which a server process must not.
    from octavo.engine.core_start import start_core
    from octavo.engine.core_thread import ThreadCore

    return ThreadCore(start_core)
