"""Outputs -> TGI's reply, or its events. Hot path: once per streamed token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from msgspec import UNSET

from octavo.engine.outputs import CompletionOutput, LogprobsOnePosition, RequestOutput
from octavo.server.engine_port import TokenizerPort
from octavo.server.openai.logprobs import finite
from octavo.server.stream import frame
from octavo.server.submit import Submission
from octavo.server.tgi.render import Continuation
from octavo.server.tgi.schema import (
    TgiDetails,
    TgiPrefillToken,
    TgiReply,
    TgiStreamDetails,
    TgiStreamEvent,
    TgiToken,
)


class TgiWriter:
    """Writes the one answer of a request."""

    def __init__(self, tokenizer: TokenizerPort, asked: Continuation) -> None:
        self._tokenizer = tokenizer
        self._asked = asked
        self._top = asked.parameters.top_n_tokens or 0
        self._texts = [asked.inputs] if asked.parameters.return_full_text else []
        self._num_tokens = 0
        self._last_token_id = 0

    def reply(self, output: RequestOutput) -> TgiReply:
        """The whole reply from the last output."""
        (part,) = output.outputs
        reply = TgiReply("".join([*self._texts, part.text]))
        if self._asked.parameters.wants_details:
            reply.details = self._details(output, part)
        return reply

    async def frames(self, submission: Submission) -> AsyncGenerator[bytes, None]:
        """An event per token; the last one says how it ended."""
        async with aclosing(submission.outputs()) as outputs:
            async for _, output in outputs:
                (part,) = output.outputs
                self._texts.append(part.text)
                for event in self._events(part):
                    if part.finish_reason is not None and event.index == self._num_tokens:
                        self._end(event, output, part)
                    yield frame(event)

    def _events(self, part: CompletionOutput) -> Iterator[TgiStreamEvent]:
        begin = self._num_tokens
        self._num_tokens += len(part.token_ids)
        if not part.token_ids:
            if part.finish_reason is not None or part.text:
                # Text of tokens that were already told: an event needs one.
                token = TgiToken(self._last_token_id, part.text, 0.0, special=False)
                yield TgiStreamEvent(index=begin, token=token)
            return
        self._last_token_id = part.token_ids[-1]
        assert part.logprobs is not None, "streams ask for them"
        texts = self._share_out(part)
        for number, (token_id, position) in enumerate(zip(part.token_ids, part.logprobs, strict=True)):
            event = TgiStreamEvent(
                index=begin + number + 1, token=self._token(token_id, position, texts[number])
            )
            if self._top:
                event.top_tokens = self._best(position)
            yield event

    def _end(self, event: TgiStreamEvent, output: RequestOutput, part: CompletionOutput) -> None:
        event.generated_text = "".join(self._texts)
        if self._asked.parameters.details:
            event.details = TgiStreamDetails(
                _finish_reason(part), self._num_tokens, self._asked.seed, len(output.prompt_token_ids)
            )

    def _share_out(self, part: CompletionOutput) -> list[str]:
        """Text per token, so that all of them joined are the answer."""
        if len(part.token_ids) == 1:
            return [part.text]
        texts = [self._tokenizer.token_text(token_id) for token_id in part.token_ids]
        if "".join(texts) == part.text:
            return texts
        return [""] * (len(texts) - 1) + [part.text]

    def _details(self, output: RequestOutput, part: CompletionOutput) -> TgiDetails:
        positions = part.logprobs
        assert positions is not None, "details ask for them"
        tokens = zip(part.token_ids, positions, strict=True)
        return TgiDetails(
            finish_reason=_finish_reason(part),
            generated_tokens=len(part.token_ids),
            seed=self._asked.seed,
            prefill=self._prefill(output),
            tokens=[self._token(token_id, position) for token_id, position in tokens],
            top_tokens=[self._best(position) for position in positions] if self._top else UNSET,
        )

    def _prefill(self, output: RequestOutput) -> list[TgiPrefillToken]:
        if not self._asked.parameters.decoder_input_details or output.prompt_logprobs is None:
            return []
        return [
            TgiPrefillToken(
                token_id,
                self._tokenizer.token_text(token_id),
                None if position is None else finite(position[token_id].logprob),
            )
            for token_id, position in zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
        ]

    def _token(self, token_id: int, position: LogprobsOnePosition, text: str | None = None) -> TgiToken:
        shown = self._tokenizer.token_text(token_id) if text is None else text
        logprob = finite(position[token_id].logprob)
        return TgiToken(token_id, shown, logprob, self._tokenizer.is_special(token_id))

    def _best(self, position: LogprobsOnePosition) -> list[TgiToken]:
        best: Sequence[int] = sorted(position, key=lambda token_id: -position[token_id].logprob)[: self._top]
        return [self._token(token_id, position) for token_id in best]


def _finish_reason(part: CompletionOutput) -> str:
    if part.finish_reason == "length":
        return "length"
    return "stop_sequence" if isinstance(part.stop_reason, str) else "eos_token"
