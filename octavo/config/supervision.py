"""SupervisionConfig: what happens when the engine core dies or gets stuck."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.option import option


@dataclass(frozen=True, kw_only=True)
class SupervisionConfig:
    """What happens when the engine core dies or gets stuck."""

    max_core_restarts: int = option(
        5,
        "Most restarts of the engine core within core_restart_window; one more failure ends the server. "
        "0 restarts nothing.",
    )
    core_restart_window: float = option(600.0, "Seconds over which restarts are counted.")
    core_stall_timeout: float | None = option(
        None,
        "Seconds of silence after which the engine core counts as stuck and is killed and started again.",
    )
