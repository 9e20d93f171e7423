"""Who answers in a chat: a server over HTTP, or a model in this process. Both stream text."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx
import msgspec

from octavo.base.errors import EngineError, RequestError
from octavo.cli.http import error_message, headers, uses_proxies
from octavo.cli.sampling import merged
from octavo.messages.params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from octavo.config.root import EngineConfig

Message = dict[str, str]
T = TypeVar("T")


class Answer(msgspec.Struct, kw_only=True):
    """What is known about an answer once its stream has ended, or was stopped."""

    sent: float
    first_text: float | None = None
    last_text: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None

    def saw_text(self) -> None:
        self.last_text = time.monotonic()
        self.first_text = self.first_text or self.last_text

    def describe(self) -> str:
        """'42 tokens, 31.2 tok/s, first after 0.21 s'; what is unknown is left out."""
        parts = []
        if self.output_tokens:
            parts.append(f"{self.output_tokens} tokens")
        if self.first_text is not None and self.last_text is not None:
            seconds = self.last_text - self.first_text
            if self.output_tokens > 1 and seconds > 0:
                parts.append(f"{(self.output_tokens - 1) / seconds:.1f} tok/s")
            parts.append(f"first after {self.first_text - self.sent:.2f} s")
        if self.finish_reason == "length":
            parts.append("cut at the token limit")
        return ", ".join(parts)


class Partner(Protocol):
    """One model to talk to."""

    name: str

    def stream(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], answer: Answer
    ) -> Generator[str, None, None]:
        """Pieces of text; `answer` is filled along the way. Closing the iterator stops the model."""

    def close(self) -> None: ...


class ServerPartner:
    """Talks to /v1/chat/completions."""

    def __init__(self, url: str, model: str, api_key: str | None) -> None:
        self.name = model
        self._url = f"{url}/v1/chat/completions"
        self._http = httpx.Client(
            headers=headers(api_key), timeout=httpx.Timeout(None, connect=10), trust_env=uses_proxies(url)
        )

    def stream(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], answer: Answer
    ) -> Generator[str, None, None]:
        body = {
            "model": self.name,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **merged({}, sampling),
        }
        try:
            content = msgspec.json.encode(body)
        except UnicodeEncodeError:
            raise RequestError("The text holds bytes that are no UTF-8 text.") from None
        is_done = False
        try:
            with self._http.stream("POST", self._url, content=content) as response:
                if response.status_code != 200:
                    raise EngineError(error_message(response.status_code, response.read()))
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    is_done = is_done or line[5:].strip() == "[DONE]"
                    if not is_done:
                        yield from _pieces(line[5:], answer)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise EngineError(f"The connection to {self._url} failed: {error}") from None
        if not is_done:
            raise EngineError("The answer broke off: its stream ended without [DONE].")

    def close(self) -> None:
        self._http.close()


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


def _pieces(event: str, answer: Answer) -> Iterator[str]:
    chunk = msgspec.json.decode(event, type=_Chunk)
    if chunk.error is not None:
        raise EngineError(error_message(200, msgspec.json.encode({"error": chunk.error})))
    if chunk.usage is not None:
        answer.prompt_tokens = chunk.usage.prompt_tokens
        answer.output_tokens = chunk.usage.completion_tokens
    for choice in chunk.choices:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        if choice.delta is not None and choice.delta.content:
            answer.saw_text()
            yield choice.delta.content


class InlinePartner:
    """A model in this process. Its event loop runs in a thread of its own, also while the user types."""

    def __init__(self, config: EngineConfig) -> None:
        from octavo.engine.async_llm import AsyncLLM

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="octavo-chat", daemon=True)
        self._thread.start()
        self._llm = self._wait(AsyncLLM.start(config, in_process=True))
        self.name = self._llm.config.model.served_model_name[0]

    def stream(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], answer: Answer
    ) -> Generator[str, None, None]:
        values = merged({"max_tokens": None, **self._llm.default_sampling}, sampling)
        params = SamplingParams(output_kind=RequestOutputKind.DELTA, **values)
        token_ids = self._llm.tokenizer.encode_chat([dict(message) for message in messages])
        answer.prompt_tokens = len(token_ids)
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(self._produce(token_ids, params, answer, pieces), self._loop)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            task.cancel()

    async def _produce(
        self,
        token_ids: list[int],
        params: SamplingParams,
        answer: Answer,
        pieces: queue.SimpleQueue[str | BaseException | None],
    ) -> None:
        outputs: AsyncIterator[Any] | None = None
        try:
            outputs = self._llm.generate(token_ids, params)
            async for output in outputs:
                sample = output.outputs[0]
                answer.output_tokens += len(sample.token_ids)
                answer.finish_reason = sample.finish_reason
                if sample.text:
                    answer.saw_text()
                    pieces.put(sample.text)
            pieces.put(None)
        except Exception as error:  # raised again where the pieces are read
            pieces.put(error)
        finally:
            close = getattr(outputs, "aclose", None)
            if close is not None:
                await close()

    def close(self) -> None:
        self._wait(self._llm.shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
