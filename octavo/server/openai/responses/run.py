"""One response being made: the conversation runs, the writer writes, the store keeps.

Hot path: `frames` runs once per streamed token.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec import UNSET
from starlette.types import Receive

from octavo.base.errors import EngineError, RequestError
from octavo.server.conversation import Conversation
from octavo.server.disconnect import while_connected
from octavo.server.openai.responses.events import ResponseEvent, event_frame
from octavo.server.openai.responses.reply import (
    InputTokensDetails,
    OutputTokensDetails,
    ResponseReply,
    ResponseUsage,
)
from octavo.server.openai.responses.writer import ResponseWriter
from octavo.server.openai.schema.generation import Usage
from octavo.server.openai.timings import timings_of

logger = logging.getLogger(__name__)


class Run:
    """Runs once, by `whole` or by `frames`. `keep` is called with the response in its last state."""

    def __init__(
        self,
        conversation: Conversation,
        writer: ResponseWriter,
        keep: Callable[[], Awaitable[None]],
        *,
        has_timings: bool,
    ) -> None:
        self._conversation = conversation
        self._writer = writer
        self._keep = keep
        self._has_timings = has_timings

    async def whole(self, receive: Receive) -> ResponseReply:
        """The response when it is complete. Raises what went wrong, and ClientGone if nobody waits."""
        return await while_connected(receive, self._whole())

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """All events as they come. What goes wrong becomes the last one."""
        for event in self._writer.begin():
            yield event_frame(event)
        try:
            async with aclosing(self._conversation.parts()) as parts:
                async for part in parts:
                    for event in self._writer.read(part):
                        yield event_frame(event)
            last = self._ended()
        except Exception as error:
            if not isinstance(error, RequestError | EngineError):
                logger.exception("A response failed")
            last = self._writer.fail(error)
        await self._keep()
        for event in last:
            yield event_frame(event)

    async def cancelled(self) -> list[bytes]:
        """The last frames of a run that was ended from outside."""
        last = self._writer.cancel()
        await self._keep()
        return [event_frame(event) for event in last]

    def error_frame(self, error: Exception) -> bytes:
        return event_frame(self._writer.broken(error))

    async def _whole(self) -> ResponseReply:
        async with aclosing(self._conversation.parts()) as parts:
            async for part in parts:
                self._writer.read(part)
        self._ended()
        await self._keep()
        return self._writer.reply

    def _ended(self) -> list[ResponseEvent]:
        output = self._conversation.last_output
        if self._has_timings and output is not None:
            self._writer.reply.timings = timings_of([output]) or UNSET
        return self._writer.end(response_usage(self._conversation.usage.usage()))


def response_usage(usage: Usage) -> ResponseUsage:
    """The same numbers by the names of this API."""
    prompt, answer = usage.prompt_tokens_details, usage.completion_tokens_details
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(prompt.cached_tokens if prompt else 0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(answer.reasoning_tokens if answer else 0),
        total_tokens=usage.total_tokens,
    )
