"""ObserveConfig: logs and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.option import option


@dataclass(frozen=True, kw_only=True)
class ObserveConfig:
    """Logs and metrics."""

    log_format: str = option("text", "Shape of log lines.", choices=("text", "json"))
    log_level: str | None = option(None, "Level of log lines (also from OCTAVO_LOG_LEVEL).")
    log_requests: bool = option(True, "One log line per finished request (never its content).")
    metrics_prefix: str = option("vllm:", "Prefix of metric names; 'octavo:' for our own.")
    disable_metrics: bool = option(False, "Do not collect or serve metrics.")
