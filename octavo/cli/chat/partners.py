"""Who answers in a chat: a server over HTTP, or a model in this process. Both take the same body and stream
what the model thinks and what it says."""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx
import msgspec

from octavo.base.errors import EngineError, RequestError
from octavo.cli.http import error_message, headers, uses_proxies
from octavo.cli.sampling import merged
from octavo.server.parsing.events import ContentDelta, ReasoningDelta

if TYPE_CHECKING:
    from octavo.config.root import EngineConfig
    from octavo.engine.async_llm import AsyncLLM
    from octavo.server.openai.schema.chat import ChatBody
    from octavo.server.serving import Serving

Message = dict[str, str]
Piece = ContentDelta | ReasoningDelta
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
    ) -> Generator[Piece, None, None]:
        """Pieces of the thinking and of the answer; `answer` is filled along the way. Closing the iterator
        stops the model."""

    def close(self) -> None: ...


def _body(model: str, messages: Sequence[Message], sampling: Mapping[str, Any]) -> bytes:
    """Of a chat request. Raises RequestError for text that JSON cannot hold."""
    body = {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **merged({}, sampling),
    }
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise RequestError("The text holds bytes that are no UTF-8 text.") from None


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
    ) -> Generator[Piece, None, None]:
        content = _body(self.name, messages, sampling)
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
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The same under its newer name."""

    def pieces(self) -> Iterator[Piece]:
        if thought := self.reasoning_content or self.reasoning:
            yield ReasoningDelta(thought)
        if self.content:
            yield ContentDelta(self.content)


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


def _pieces(event: str, answer: Answer) -> Iterator[Piece]:
    chunk = msgspec.json.decode(event, type=_Chunk)
    if chunk.error is not None:
        raise EngineError(error_message(200, msgspec.json.encode({"error": chunk.error})))
    if chunk.usage is not None:
        answer.prompt_tokens = chunk.usage.prompt_tokens
        answer.output_tokens = chunk.usage.completion_tokens
    for choice in chunk.choices:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        for piece in choice.delta.pieces() if choice.delta is not None else ():
            answer.saw_text()
            yield piece


class InlinePartner:
    """A model in this process. Its event loop runs in a thread of its own, also while the user types."""

    def __init__(self, config: EngineConfig) -> None:
        from octavo.engine.async_llm import AsyncLLM

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="octavo-chat", daemon=True)
        self._thread.start()
        self._llm = self._wait(AsyncLLM.start(config, in_process=True))
        self.name = self._llm.config.model.served_model_name[0]
        self._serving = _serving(self._llm)

    def stream(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], answer: Answer
    ) -> Generator[Piece, None, None]:
        from octavo.server.body import parse, validate
        from octavo.server.openai.schema.chat import ChatBody

        content = _body(self.name, messages, sampling)
        body = validate(parse(content), ChatBody)
        pieces: queue.SimpleQueue[Piece | BaseException | None] = queue.SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(self._produce(body, len(content), answer, pieces), self._loop)
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            task.cancel()

    async def _produce(
        self,
        body: ChatBody,
        num_bytes: int,
        answer: Answer,
        pieces: queue.SimpleQueue[Piece | BaseException | None],
    ) -> None:
        from octavo.server.conversation import open_conversation

        try:
            reply_id = f"chat-{secrets.token_hex(8)}"
            conversation = await open_conversation(self._serving, body, num_bytes, reply_id)
            answer.prompt_tokens = len(conversation.prompt_token_ids)
            async with aclosing(conversation.parts()) as parts:
                async for part in parts:
                    answer.output_tokens += len(part.token_ids)
                    answer.finish_reason = part.finish_reason
                    for event in part.events:
                        if isinstance(event, Piece):
                            answer.saw_text()
                            pieces.put(event)
            pieces.put(None)
        except Exception as error:  # raised again where the pieces are read
            pieces.put(error)

    def close(self) -> None:
        self._wait(self._llm.shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _serving(llm: AsyncLLM) -> Serving:
    """What reads conversations and answers in a server, for one user without a key."""
    from octavo import __version__
    from octavo.server.lifecycle import Lifecycle
    from octavo.server.serving import Serving
    from octavo.server.tenants.accounts import Accounts
    from octavo.server.tenants.key_book import KeyBook

    return Serving(
        engine=llm,
        server=llm.config.server,
        observe=llm.config.observe,
        lifecycle=Lifecycle(),
        metrics=None,
        keys=KeyBook({}),
        accounts=Accounts(),
        created=int(time.time()),
        version=__version__,
    )
