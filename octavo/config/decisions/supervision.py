"""How often a core is started again, and when it counts as stuck."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.config.decisions.known import Known, decided
from octavo.config.root import EngineConfig

CPU_STALL_S, GPU_STALL_S = 300.0, 60.0
MIN_STALL_S = 1.0


def decide_supervision(config: EngineConfig, known: Known) -> EngineConfig:
    wishes = config.supervision
    if wishes.max_core_restarts < 0:
        raise ConfigError(
            f"max_core_restarts is {wishes.max_core_restarts}; at least 0.", param="max_core_restarts"
        )
    if not 0.0 < wishes.core_restart_window < float("inf"):
        raise ConfigError(
            f"core_restart_window is {wishes.core_restart_window}; a number of seconds over 0.",
            param="core_restart_window",
        )
    timeout = wishes.core_stall_timeout
    if timeout is None:
        timeout, why = (
            (GPU_STALL_S, "no step of a GPU takes so long")
            if known.device.kind == "cuda"
            else (CPU_STALL_S, "a step of a large model may take minutes on a CPU")
        )
        return decided(config, "supervision", known, core_stall_timeout=(timeout, why))
    if not timeout >= MIN_STALL_S:
        raise ConfigError(
            f"core_stall_timeout is {timeout}; at least {MIN_STALL_S:.0f} second.", param="core_stall_timeout"
        )
    return config
