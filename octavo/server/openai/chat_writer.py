"""ChatWriter: a conversation -> one reply, or chunks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from msgspec import UNSET, UnsetType

from octavo.engine.outputs import CompletionOutput, LogprobsOnePosition
from octavo.server.conversation import Answer, AnswerPart, Conversation
from octavo.server.openai.chat_events import ROLE, ChatWords
from octavo.server.openai.logprobs import LogprobFormat, weight_of
from octavo.server.openai.schema.chat import (
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChatReply,
    ChunkChoice,
    Delta,
)
from octavo.server.openai.schema.timings import Timings
from octavo.server.openai.timings import timings_of
from octavo.server.render.chat import echoed_text
from octavo.server.serving import Serving
from octavo.server.stream import ChunkFrames, frame


class ChatWriter:
    """Hot path: `frames` runs once per streamed token."""

    def __init__(
        self, serving: Serving, body: ChatBody, conversation: Conversation, reply_id: str, model: str
    ) -> None:
        self._body = body
        self._conversation = conversation
        self._top = body.num_shown_logprobs
        self._format = LogprobFormat(serving.tokenizer, bool(body.return_tokens_as_token_ids))
        self._words = ChatWords(
            shows_reasoning=body.include_reasoning is not False, is_old=body.functions is not None
        )
        self._begun: set[int] = set()
        self._has_only_text = not (body.logprobs or body.return_token_ids or body.wants_running_usage)
        """Between its first and its last chunk an answer is only text, reasoning and calls."""
        self._echo = echoed_text(body)
        self._id = reply_id
        self._created = int(time.time())
        self._model = model
        self._fingerprint = serving.fingerprint

    def weight(self, answers: list[Answer]) -> int:
        """What making the reply counts as, for `off_loop_if_long`."""
        output = self._conversation.last_output
        prompt = weight_of(output.prompt_logprobs) if output is not None else 0
        return prompt + sum(weight_of(answer.logprobs) for answer in answers)

    def reply(self, answers: list[Answer]) -> ChatReply:
        """The whole reply."""
        output = self._conversation.last_output
        assert output is not None, "answers come from an output"
        reply = ChatReply(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[self._choice(answer) for answer in answers],
            usage=self._conversation.usage.usage(),
            system_fingerprint=self._fingerprint,
            timings=self._timings(),
        )
        if self._body.prompt_logprobs is not None and output.prompt_logprobs is not None:
            reply.prompt_logprobs = self._format.prompt(output.prompt_logprobs)
        if self._body.return_token_ids:
            reply.prompt_token_ids = output.prompt_token_ids
        return reply

    def frames(self) -> AsyncGenerator[bytes, None]:
        """Role, text and calls as they come, finish reason, usage if wanted."""
        is_fast = self._has_only_text and self._conversation.is_plain
        return self._plain_frames() if is_fast else self._event_frames()

    async def _plain_frames(self) -> AsyncGenerator[bytes, None]:
        """All is content: nothing is made of a token but its frame."""
        chunks = ChunkFrames(self._chunk(None))
        conversation = self._conversation
        async with aclosing(conversation.plain_outputs()) as outputs:
            async for _, output in outputs:
                conversation.note(output)
                for part in output.outputs:
                    if part.finish_reason is None and part.index in self._begun:
                        if part.text:
                            yield chunks.frame(ChunkChoice(part.index, Delta(content=part.text)))
                        continue
                    for chunk in self._edges(part):
                        yield frame(chunk)
        for chunk in self._end():
            yield frame(chunk)

    def _edges(self, part: CompletionOutput) -> Iterator[ChatChunk]:
        """The first or the last part of an answer."""
        yield from self._first(part.index)
        if part.text:
            yield self._chunk(ChunkChoice(part.index, Delta(content=part.text)))
        if part.finish_reason is not None:
            yield self._last(part, part.finish_reason)

    async def _event_frames(self) -> AsyncGenerator[bytes, None]:
        chunks = ChunkFrames(self._chunk(None)) if self._has_only_text else None
        async with aclosing(self._conversation.parts()) as parts:
            async for part in parts:
                for chunk in self._first(part.index):
                    yield frame(chunk)
                for choice in self._choices(part):
                    yield chunks.frame(choice) if chunks is not None else frame(self._chunk(choice))
                if part.finish_reason is not None:
                    yield frame(self._last(part, self._words.finish_reason(part.finish_reason)))
        for chunk in self._end():
            yield frame(chunk)

    def _end(self) -> Iterator[ChatChunk]:
        """What comes behind all answers."""
        if self._body.wants_usage or self._body.timings:
            end = self._chunk(None, has_usage=self._body.wants_usage)
            end.timings = self._timings()
            yield end

    def _choices(self, part: AnswerPart) -> Iterator[ChunkChoice]:
        """What is new of an answer. Log-probabilities and ids go with the first thing said of it."""
        logprobs = self._logprobs(part.token_ids, part.logprobs)
        token_ids: list[int] | UnsetType = part.token_ids if self._body.return_token_ids else UNSET
        deltas = [delta for event in part.events if (delta := self._words.delta(event)) is not None]
        if not deltas and (token_ids or (logprobs and logprobs.content)):
            deltas = [Delta(content="")]
        for delta in deltas:
            yield ChunkChoice(part.index, delta, logprobs, token_ids=token_ids)
            logprobs, token_ids = None, UNSET

    def _choice(self, answer: Answer) -> ChatChoice:
        return ChatChoice(
            answer.index,
            self._words.message(answer, self._echo),
            self._logprobs(answer.token_ids, answer.logprobs),
            self._words.finish_reason(answer.finish_reason),
            answer.stop_reason,
            answer.token_ids if self._body.return_token_ids else UNSET,
        )

    def _first(self, index: int) -> Iterator[ChatChunk]:
        """What comes before anything else of an answer."""
        if index in self._begun:
            return
        first = self._chunk(ChunkChoice(index, Delta(ROLE, "")))
        if self._body.return_token_ids and not self._begun:
            first.prompt_token_ids = self._conversation.prompt_token_ids
        self._begun.add(index)
        yield first
        if self._echo:
            yield self._chunk(ChunkChoice(index, Delta(content=self._echo)))

    def _last(self, part: AnswerPart | CompletionOutput, finish_reason: str) -> ChatChunk:
        reason: Any = UNSET if part.stop_reason is None else part.stop_reason
        return self._chunk(ChunkChoice(part.index, Delta(), None, finish_reason, reason))

    def _chunk(self, choice: ChunkChoice | None, *, has_usage: bool = False) -> ChatChunk:
        has_usage = has_usage or self._body.wants_running_usage
        return ChatChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[] if choice is None else [choice],
            usage=self._conversation.usage.usage() if has_usage else UNSET,
            system_fingerprint=self._fingerprint,
        )

    def _timings(self) -> Timings | UnsetType:
        output = self._conversation.last_output
        if not self._body.timings or output is None:
            return UNSET
        return timings_of([output]) or UNSET

    def _logprobs(
        self, token_ids: list[int], positions: list[LogprobsOnePosition] | None
    ) -> ChatLogprobs | None:
        if not self._body.logprobs or positions is None:
            return None
        return self._format.chat(token_ids, positions, self._top)
