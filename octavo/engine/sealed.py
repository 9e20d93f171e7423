"""What both ends of the line to a core do with a frame that is not from the other end: drop it and say so."""

from __future__ import annotations

import logging

from octavo.messages.seal import BrokenSeal, Seal

logger = logging.getLogger(__name__)


def opened(seal: Seal, frame: bytes) -> memoryview | None:
    """The message in a frame; None for one that is refused."""
    try:
        return seal.open(frame)
    except BrokenSeal as error:
        logger.warning("A frame on the engine's socket was dropped: %s.", error)
        return None
