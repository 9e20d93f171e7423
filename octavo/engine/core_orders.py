"""Orders to a core: what is asked of it beside requests, between two steps, and answered one by one."""

from __future__ import annotations

from octavo.core.loop import EngineCore
from octavo.engine.core_failure import describe_failure
from octavo.messages.wire import (
    Order,
    OrderDone,
    ResetPrefixCache,
    SetLogLevel,
    Sleep,
    StartProfile,
    StopProfile,
    WakeUp,
)
from octavo.observe.log import set_log_level


def carry_out(core: EngineCore, order: Order) -> OrderDone:
    """Do it. What goes wrong is an answer, not the end of the core."""
    try:
        return OrderDone(file=_carry_out(core, order))
    except Exception as error:
        return OrderDone(failure=describe_failure(error))


def _carry_out(core: EngineCore, order: Order) -> str | None:
    match order:
        case ResetPrefixCache():
            core.reset_prefix_cache()
        case Sleep(level):
            core.sleep(level)
        case WakeUp():
            core.wake_up()
        case StartProfile():
            core.executor.start_profile()
        case StopProfile(folder):
            return core.executor.stop_profile(folder)
        case SetLogLevel(level):
            set_log_level(level)
    return None
