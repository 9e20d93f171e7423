"""Logging set-up: one handler for our lines and uvicorn's, never blocking, with request ids."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from octavo.base.env import log_level
from octavo.base.errors import ConfigError
from octavo.observe.log_filters import RateLimit, StampRequest
from octavo.observe.log_lines import FIELDS, JsonLines, TextLines
from octavo.observe.log_queue import QueuedHandler

LOGGERS = ("octavo", "uvicorn")
"""Roots of the loggers we own."""

REFUSALS = "octavo.access.refused"
"""Requests that were refused: anybody can make as many of them as he likes, so they must not fill a disk."""
MOST_REFUSALS_S = 100
"""Lines a second."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def set_up_logging(
    log_format: str = "text", level: str | None = None, stream: TextIO | None = None
) -> QueuedHandler:
    """Send log lines to `stream` (standard error unless given). A second call replaces the first."""
    wish = _checked(level or log_level())
    handler = QueuedHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    handler.addFilter(RateLimit())
    handler.addFilter(StampRequest())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
        logger.propagate = False
    logging.getLogger(REFUSALS).filters = [
        RateLimit(burst=MOST_REFUSALS_S, window_s=1.0, level=logging.DEBUG)
    ]
    set_log_level(wish)
    return handler


def set_log_level(level: str) -> None:
    """Of our lines; uvicorn's stay at WARNING or above."""
    wish = _checked(level)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(
            wish if name == "octavo" else max(logging.WARNING, getattr(logging, wish))
        )


def _checked(level: str) -> str:
    if level.upper() not in LEVELS:
        raise ConfigError(f"log_level is {level.upper()!r}; one of {', '.join(LEVELS)}.", param="log_level")
    return level.upper()


def log_fields(logger: logging.Logger, level: int, message: str, **fields: Any) -> None:
    """One line with fields beside the message. Never pass content of a request."""
    if logger.isEnabledFor(level):
        logger.log(level, message, extra={FIELDS: fields})
