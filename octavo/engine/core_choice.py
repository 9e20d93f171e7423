"""Where an engine's core runs: in a process of its own, or in a thread of this one."""

from __future__ import annotations

from octavo.engine.core_process import ProcessCore
from octavo.engine.supervised_core import SupervisedCore


async def launch_core(in_process: bool) -> SupervisedCore:
    """A core on its way: a child process, or a thread of this one."""
    core = _make_core(in_process)
    await core.launch()
    return core


def _make_core(in_process: bool) -> SupervisedCore:
    if not in_process:
        return SupervisedCore(ProcessCore)
    # These import torch, which a server process must not.
    from octavo.engine.core_start import start_core
    from octavo.engine.core_thread import ThreadCore

    return SupervisedCore(lambda: ThreadCore(start_core))
