"""An error as it crosses from core to engine: typed where we know it, closed where we do not."""

from __future__ import annotations

import logging

from octavo.base.errors import OctavoError
from octavo.messages.wire import CoreFailed

logger = logging.getLogger(__name__)


def describe_failure(error: Exception) -> CoreFailed:
    """What to tell the engine. Errors that are not ours are logged here, where their traceback is."""
    if isinstance(error, OctavoError):
        return CoreFailed(
            error=type(error).__name__, code=error.code.name, message=error.message, param=error.param
        )
    logger.error("The engine core failed", exc_info=error)
    detail = f"{type(error).__name__}: {error}"
    return CoreFailed(
        error="EngineError", code="ENGINE_FAILED", message=f"The engine core failed ({detail[:500]})."
    )
