"""POST /v1/completions: hops 1, 2 and 8 of a request with plain prompts."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from octavo.engine.outputs import CompletionOutput, LogprobsOnePosition, RequestOutput
from octavo.server.body import read
from octavo.server.disconnect import while_connected
from octavo.server.openai.logprobs import LogprobFormat, weight_of
from octavo.server.openai.schema.completion import (
    CompletionBody,
    CompletionChoice,
    CompletionLogprobs,
    CompletionReply,
)
from octavo.server.openai.text_offsets import TextOffsets
from octavo.server.openai.timings import timings_of
from octavo.server.openai.usage import UsageCount
from octavo.server.render.completion import drops_answer, render_completion
from octavo.server.render.rendered import Rendered
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving
from octavo.server.slow_parts import with_slow_parts
from octavo.server.stream import ChunkFrames, EventStream, frame
from octavo.server.submit import Submission, submit


async def create_completion(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, CompletionBody)
    model = serving.check_model(body.model)
    rendered = await off_loop_if_long(num_bytes, render_completion, serving, body)
    rendered = await with_slow_parts(serving, rendered)
    reply_id = f"cmpl-{request_id_of(request)}"
    submission = await submit(serving, rendered, reply_id)
    writer = CompletionWriter(serving, body, rendered, CompletionReply(
        id=reply_id, created=int(time.time()), model=model, choices=[], system_fingerprint=serving.fingerprint
    ))  # fmt: skip
    if body.wants_stream:
        return EventStream(writer.frames(submission))
    results = await while_connected(request.receive, submission.results())
    return await off_loop_if_long(writer.weight(results), lambda: json_reply(writer.reply(results)))


@dataclass(slots=True)
class _Choice:
    """How far one choice has been written."""

    offsets: TextOffsets
    has_begun: bool = False


class CompletionWriter:
    """Outputs -> one reply, or chunks."""

    def __init__(
        self, serving: Serving, body: CompletionBody, rendered: Rendered, empty: CompletionReply
    ) -> None:
        self._serving = serving
        self._body = body
        self._rendered = rendered
        self._empty = empty
        self._format = LogprobFormat(serving.tokenizer, bool(body.return_tokens_as_token_ids))
        self._choices: dict[int, _Choice] = {}
        self._prompt_logprobs: dict[int, list[LogprobsOnePosition | None]] = {}
        """By prompt: in a stream they come once, and every sample echoes them, whenever it begins."""
        self._usage = UsageCount()
        self._drops_answer = drops_answer(body)
        self._has_text = not serving.engine.config.model.skip_tokenizer_init
        self._is_plain = (
            body.logprobs is None
            and body.prompt_logprobs is None
            and not (body.echo or body.return_token_ids)
        )
        """Chunks say text and how it ended: the hot path."""
        self._frames_of_choices = ChunkFrames(self._with([], has_usage=False))

    def weight(self, results: Sequence[RequestOutput]) -> int:
        """What making the reply counts as, for `off_loop_if_long`."""
        parts = sum(weight_of(part.logprobs) for output in results for part in output.outputs)
        prompts = sum(weight_of(output.prompt_logprobs) for output in results)
        return parts + prompts * self._rendered.params.n

    def reply(self, results: Sequence[RequestOutput]) -> CompletionReply:
        """The whole reply from the last outputs of all prompts."""
        for index, output in enumerate(results):
            self._note(index, output)
        reply = self._with(
            [
                self._choice(index, output, part)
                for index, output in enumerate(results)
                for part in sorted(output.outputs, key=lambda part: part.index)
            ],
            has_usage=True,
        )
        if self._body.timings:
            reply.timings = timings_of(results) or UNSET
        return reply

    async def frames(self, submission: Submission) -> AsyncGenerator[bytes, None]:
        """Chunks as they come, then usage if wanted."""
        last: dict[int, RequestOutput] = {}
        async with aclosing(submission.outputs()) as outputs:
            async for index, output in outputs:
                self._note(index, output)
                last[index] = output
                for part in output.outputs:
                    if self._is_plain:
                        data = self._chunk(index, output, part)
                    else:
                        weight = self._chunk_weight(index, part)
                        data = await off_loop_if_long(weight, self._chunk, index, output, part)
                    if data is not None:
                        yield data
        if self._body.wants_usage or self._body.timings:
            end = self._with([], has_usage=self._body.wants_usage)
            if self._body.timings:
                end.timings = timings_of(last.values()) or UNSET
            yield frame(end)

    def _note(self, index: int, output: RequestOutput) -> None:
        self._usage.add(index, output)
        if output.prompt_logprobs is not None:
            self._prompt_logprobs[index] = output.prompt_logprobs

    def _chunk(self, index: int, output: RequestOutput, part: CompletionOutput) -> bytes | None:
        """A frame, if there is something to say."""
        choice = self._choice(index, output, part)
        if self._has_text and _says_nothing(choice):
            return None
        if self._body.wants_running_usage:
            return frame(self._with([choice], has_usage=True))
        return self._frames_of_choices.frame(choice)

    def _chunk_weight(self, index: int, part: CompletionOutput) -> int:
        is_first = self._number(index, part) not in self._choices
        echoed = weight_of(self._prompt_logprobs.get(index)) if is_first else 0
        return echoed + weight_of(part.logprobs)

    def _with(self, choices: list[CompletionChoice], *, has_usage: bool) -> CompletionReply:
        empty = self._empty
        usage = self._usage.usage(is_answer_dropped=self._drops_answer) if has_usage else UNSET
        return CompletionReply(
            id=empty.id,
            created=empty.created,
            model=empty.model,
            choices=choices,
            usage=usage,
            system_fingerprint=empty.system_fingerprint,
        )

    def _number(self, index: int, part: CompletionOutput) -> int:
        return index * self._rendered.params.n + part.index

    def _choice(self, index: int, output: RequestOutput, part: CompletionOutput) -> CompletionChoice:
        number = self._number(index, part)
        if self._is_plain:
            return CompletionChoice(number, part.text, None, part.finish_reason, part.stop_reason)
        state = self._choices.get(number)
        if state is None:
            state = self._choices[number] = _Choice(self._offsets(output.prompt_token_ids))
        is_first, state.has_begun = not state.has_begun, True
        echoes = bool(self._body.echo) and is_first
        text = "" if self._drops_answer else part.text
        choice = CompletionChoice(
            number,
            self._prompt_text(index) + text if echoes else text,
            self._logprobs(state, index, output, part, echoes),
            # The token behind an echoed prompt is nobody's answer: what ended it means nothing.
            "length" if self._drops_answer and part.finish_reason else part.finish_reason,
            None if self._drops_answer else part.stop_reason,
        )
        if self._body.prompt_logprobs is not None and output.prompt_logprobs is not None:
            choice.prompt_logprobs = self._format.prompt(output.prompt_logprobs)
        if self._body.return_token_ids:
            choice.token_ids = [] if self._drops_answer else part.token_ids
            if is_first and self._rendered.prompts[index].vectors is None:
                choice.prompt_token_ids = output.prompt_token_ids
        return choice

    def _logprobs(
        self, state: _Choice, index: int, output: RequestOutput, part: CompletionOutput, echoes: bool
    ) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        token_ids: list[int] = []
        positions: list[LogprobsOnePosition | None] = []
        offsets: list[int] = []
        if echoes:
            token_ids += output.prompt_token_ids
            positions += self._prompt_logprobs[index]
            offsets += state.offsets.of(output.prompt_token_ids, self._rendered.prompts[index].text)
        if part.logprobs is not None and not self._drops_answer:
            token_ids += part.token_ids
            positions += part.logprobs
            offsets += state.offsets.of(part.token_ids)
        return self._format.legacy(token_ids, positions, offsets)

    def _offsets(self, prompt_token_ids: list[int]) -> TextOffsets:
        tokenizer = self._serving.tokenizer
        skips_special = self._rendered.params.skip_special_tokens
        begins_text = bool(self._body.echo) or not any(
            tokenizer.token_bytes(token_id) and not (skips_special and tokenizer.is_special(token_id))
            for token_id in prompt_token_ids
        )
        strips_space = tokenizer.strips_first_space and begins_text
        return TextOffsets(tokenizer, skips_special=skips_special, strips_space=strips_space)

    def _prompt_text(self, index: int) -> str:
        prompt = self._rendered.prompts[index]
        if prompt.text is not None:
            return prompt.text
        return self._serving.tokenizer.decode(prompt.token_ids, self._rendered.params.skip_special_tokens)


def _says_nothing(choice: CompletionChoice) -> bool:
    """Tokens that are not text yet make no chunk of their own."""
    if choice.text or choice.finish_reason is not None:
        return False
    return not (choice.logprobs and choice.logprobs.tokens) and not choice.token_ids
