"""TemplateLeash: chat templates that come with requests are run by helper processes, within limits.

The sandbox counts what a template does, but not all of it (a slice, a split), and time in the middle of one
operation it cannot take back. A process can be killed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.base.leash import Leash, LeashBroken

CPU_S = 1
"""What one rendering may compute; the kernel ends the helper then."""
WALL_S = 2.0
MEMORY_BYTES = 256 * 2**20
"""What a helper may take beyond what it has at its start."""


class TemplateJob(msgspec.Struct, frozen=True, array_like=True):
    source: str
    values: dict[str, Any]
    input_chars: int


class TemplateDone(msgspec.Struct, frozen=True, array_like=True):
    """Text, or why there is none."""

    text: str | None
    refusal: str = ""


class TemplateLeash:
    """Belongs to one engine. Nothing is started before the first template."""

    def __init__(self) -> None:
        self._leash = Leash("octavo.tokens.template_helper", wall_s=WALL_S)

    def run(self, source: str, values: dict[str, Any], input_chars: int) -> str:
        """As `run_template`, elsewhere. Waits: call it in a thread. Raises RequestError, and EngineError."""
        try:
            frame = msgspec.msgpack.encode(TemplateJob(source, values, input_chars))
        except (OverflowError, UnicodeEncodeError):
            raise _failed(
                "The chat template cannot be run: it or the messages hold lone surrogates or a whole number "
                "of more than 64 bits."
            ) from None
        try:
            done = msgspec.msgpack.decode(self._leash.ask(frame).result(), type=TemplateDone)
        except LeashBroken:
            raise _failed(
                "The chat template was stopped: it takes more time or memory than one request may."
            ) from None
        if done.text is None:
            raise _failed(done.refusal)
        return done.text

    async def close(self) -> None:
        """End the helpers. Idempotent."""
        await asyncio.to_thread(self._leash.close)


def _failed(message: str) -> RequestError:
    return RequestError(message, code=ErrorCode.TEMPLATE_FAILED, param="chat_template")
