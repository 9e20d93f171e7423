"""A fake engine whose answers are given, and a tokenizer whose template shows tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from server_fakes import FakeEngine, FakeTokenizer, position_of

from octavo.engine.outputs import CompletionOutput, RequestOutput
from octavo.messages.params import RequestOutputKind, SamplingParams

QWEN = "{{ tools }}<tool_call>{'arguments'}</tool_call>"
THINKING = QWEN + "<think></think>{% if enable_thinking %}"


@dataclass
class SpokenEngine(FakeEngine):
    """Sample i of every request says says[i % len(says)], `piece` characters per token."""

    says: list[str] = field(default_factory=lambda: [""])
    piece: int = 3
    finish_reason: str = "stop"

    async def _stream(
        self, prompt: list[int], params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        texts = [self.says[index % len(self.says)] for index in range(params.n)]
        size = max(map(len, texts)) if params.output_kind is RequestOutputKind.FINAL_ONLY else self.piece
        ended: set[int] = set()
        for start in range(0, max(*map(len, texts), 1), size or 1):
            outputs = []
            for index, text in enumerate(texts):
                if index not in ended:
                    is_last = start + size >= len(text)
                    outputs.append(self._part(params, index, text[start : start + size], is_last))
                    ended |= {index} if is_last else set()
            yield RequestOutput(
                request_id=request_id,
                prompt=None,
                prompt_token_ids=prompt,
                outputs=outputs,
                finished=len(ended) == len(texts),
            )

    def _part(self, params: SamplingParams, index: int, text: str, is_last: bool) -> CompletionOutput:
        ids = [ord(char) % 256 for char in text]
        return CompletionOutput(
            index=index,
            text=text,
            token_ids=ids,
            logprobs=None if params.logprobs is None else [position_of(i, params.logprobs) for i in ids],
            finish_reason=self.finish_reason if is_last else None,
        )


class TemplateTokenizer(FakeTokenizer):
    """With a given template, and a given end of each prompt."""

    def __init__(self, template: str | None = QWEN, prompt_end: str = "") -> None:
        super().__init__()
        self.chat_template = template
        self.prompt_end = prompt_end

    def encode_chat(self, messages, **options):  # type: ignore[no-untyped-def]
        for message in messages:
            message.setdefault("content", "")
        return [*super().encode_chat(messages, **options), *self.encode(self.prompt_end, False)]
