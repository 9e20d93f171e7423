"""How many connections the process may hold, and what becomes of the loop's own troubles."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

logger = logging.getLogger(__name__)

RESERVED = 128
"""Descriptors for files, pipes and a new core."""


def max_connections() -> int:
    """Allow as many descriptors as this process may have, and say how many of them connections may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(hard - RESERVED, hard // 4)


def report_trouble(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio cannot tell anybody else: one line each, and no more than the log allows."""
    error = context.get("exception")
    if isinstance(error, OSError):
        # A client's connection that broke at a bad moment, or no descriptors left for a new one.
        logger.warning("%s: %s", context["message"], error.strerror)
    else:
        logger.error("%s", context["message"], exc_info=error)
