"""The server's own bounds: values with which it would refuse all that comes."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.config.decisions.known import Known
from octavo.config.root import EngineConfig

LEAST = {
    "shutdown_timeout": 0,
    "max_body_bytes": 1,
    "max_file_bytes": 0,
    "max_stored_bytes": 0,
    "max_prompts": 1,
}


def check_bounds(config: EngineConfig, known: Known) -> EngineConfig:  # noqa: ARG001
    for name, least in LEAST.items():
        value = getattr(config.server, name)
        if not value >= least:  # NaN is no number of seconds either
            raise ConfigError(f"{name} is {value}; at least {least}.", param=name)
    return config
