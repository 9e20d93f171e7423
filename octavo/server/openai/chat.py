"""POST /v1/chat/completions: hops 1, 2 and 8 of a conversation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from octavo.engine.outputs import CompletionOutput, RequestOutput
from octavo.server.body import read
from octavo.server.disconnect import while_connected
from octavo.server.openai.logprobs import LogprobFormat
from octavo.server.openai.schema.chat import (
    AnswerMessage,
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChatReply,
    ChunkChoice,
    Delta,
)
from octavo.server.openai.usage import UsageCount
from octavo.server.render.chat import echoed_text, render_chat
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving
from octavo.server.stream import ChunkFrames, EventStream, frame
from octavo.server.submit import Submission

ROLE = "assistant"


async def create_chat_completion(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, ChatBody)
    model = serving.check_model(body.model)
    rendered = await off_loop_if_long(num_bytes, render_chat, serving, body)
    reply_id = f"chatcmpl-{request_id_of(request)}"
    submission = Submission(serving, rendered, reply_id)
    writer = ChatWriter(serving, body, reply_id, model)
    if body.wants_stream:
        return EventStream(writer.frames(submission))
    (output,) = await while_connected(request.receive, submission.results())
    return json_reply(writer.reply(output))


class ChatWriter:
    """Outputs -> one reply, or chunks."""

    def __init__(self, serving: Serving, body: ChatBody, reply_id: str, model: str) -> None:
        self._body = body
        self._top = body.top_logprobs or 0
        self._format = LogprobFormat(serving.tokenizer, bool(body.return_tokens_as_token_ids))
        self._usage = UsageCount()
        self._begun: set[int] = set()
        self._is_plain = not (body.logprobs or body.return_token_ids or body.wants_running_usage)
        """Between its first and its last chunk an answer is only text: the hot path."""
        self._echo = echoed_text(body)
        self._id = reply_id
        self._created = int(time.time())
        self._model = model
        self._fingerprint = serving.fingerprint

    def reply(self, output: RequestOutput) -> ChatReply:
        """The whole reply from the last output."""
        self._usage.add(0, output)
        reply = ChatReply(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[self._choice(part) for part in sorted(output.outputs, key=lambda part: part.index)],
            usage=self._usage.usage(),
            system_fingerprint=self._fingerprint,
        )
        if self._body.prompt_logprobs is not None and output.prompt_logprobs is not None:
            reply.prompt_logprobs = self._format.prompt(output.prompt_logprobs)
        if self._body.return_token_ids:
            reply.prompt_token_ids = output.prompt_token_ids
        return reply

    async def frames(self, submission: Submission) -> AsyncGenerator[bytes, None]:
        """Role, text as it comes, finish reason, usage if wanted."""
        plain = ChunkFrames(self._chunk(None)) if self._is_plain else None
        async with aclosing(submission.outputs()) as outputs:
            async for _, output in outputs:
                self._usage.add(0, output)
                for part in output.outputs:
                    if plain is not None and part.finish_reason is None and part.index in self._begun:
                        if part.text:
                            yield plain.frame(ChunkChoice(part.index, Delta(content=part.text)))
                        continue
                    for chunk in self._chunks(output, part):
                        yield frame(chunk)
        if self._body.wants_usage:
            yield frame(self._chunk(None, has_usage=True))

    def _choice(self, part: CompletionOutput) -> ChatChoice:
        return ChatChoice(
            part.index,
            AnswerMessage(ROLE, self._echo + part.text),
            self._logprobs(part),
            part.finish_reason,
            part.stop_reason,
            part.token_ids if self._body.return_token_ids else UNSET,
        )

    def _chunks(self, output: RequestOutput, part: CompletionOutput) -> Iterator[ChatChunk]:
        if part.index not in self._begun:
            first = self._chunk(ChunkChoice(part.index, Delta(ROLE, "")))
            if self._body.return_token_ids and not self._begun:
                first.prompt_token_ids = output.prompt_token_ids
            self._begun.add(part.index)
            yield first
            if self._echo:
                yield self._chunk(ChunkChoice(part.index, Delta(content=self._echo)))
        token_ids = part.token_ids if self._body.return_token_ids else UNSET
        logprobs = self._logprobs(part)
        if part.text or token_ids or (logprobs and logprobs.content):
            delta = Delta(content=part.text)
            yield self._chunk(ChunkChoice(part.index, delta, logprobs, token_ids=token_ids))
        if part.finish_reason is not None:
            reason: Any = UNSET if part.stop_reason is None else part.stop_reason
            yield self._chunk(ChunkChoice(part.index, Delta(), None, part.finish_reason, reason))

    def _chunk(self, choice: ChunkChoice | None, *, has_usage: bool = False) -> ChatChunk:
        has_usage = has_usage or self._body.wants_running_usage
        return ChatChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[] if choice is None else [choice],
            usage=self._usage.usage() if has_usage else UNSET,
            system_fingerprint=self._fingerprint,
        )

    def _logprobs(self, part: CompletionOutput) -> ChatLogprobs | None:
        if not self._body.logprobs or part.logprobs is None:
            return None
        return self._format.chat(part.token_ids, part.logprobs, self._top)
