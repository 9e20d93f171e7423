"""One streamed request to an OpenAI-style server, timed. Hot path: runs per received piece of every stream.

Server-sent events are cut by hand and decoded by msgspec into only the fields that matter.
"""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec

from octavo.cli.bench.datasets import BenchRequest
from octavo.cli.bench.measure import Outcome
from octavo.cli.http import error_message


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None

    @property
    def has_text(self) -> bool:
        if self.delta is not None:
            return bool(self.delta.content or self.delta.reasoning_content)
        return bool(self.text)


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


class StreamClient:
    """Sends requests to one endpoint and times their streams."""

    def __init__(self, http: httpx.AsyncClient, url: str, *, is_chat: bool, body: dict[str, Any]) -> None:
        self._http = http
        self._url = url
        self._is_chat = is_chat
        self._body = {"stream": True, "stream_options": {"include_usage": True}, **body}

    def _payload(self, request: BenchRequest) -> bytes:
        body: dict[str, Any] = {**self._body, "max_tokens": request.max_tokens}
        prompt = request.prompt
        if not self._is_chat:
            body["prompt"] = prompt
        elif isinstance(prompt, str):
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["messages"] = prompt
        return msgspec.json.encode(body)

    async def send(self, request: BenchRequest) -> Outcome:
        """Send and read to the end. A failure is an outcome with `error`, never an exception."""
        payload = self._payload(request)
        stream = _TimedStream()
        try:
            async with self._http.stream("POST", self._url, content=payload) as response:
                if response.status_code != 200:
                    return stream.failed(error_message(response.status_code, await response.aread()))
                async for data in response.aiter_raw():
                    stream.feed(data)
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return stream.failed(f"{type(error).__name__}: {error}")
        return stream.ended()


class _TimedStream:
    """Cuts one response into events and notes when text came."""

    def __init__(self) -> None:
        self._rest = b""
        self._last = 0.0
        self._is_done = False
        self.outcome = Outcome(arrival_time=time.monotonic(), gaps=[])

    def feed(self, data: bytes) -> None:
        now = time.monotonic()
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            event = line[5:].strip()
            if event == b"[DONE]":
                self._is_done = True
            elif event:
                self._take(_DECODER.decode(event), now)

    def _take(self, chunk: _Chunk, now: float) -> None:
        outcome = self.outcome
        if chunk.error is not None:
            outcome.error = error_message(200, msgspec.json.encode({"error": chunk.error}))
        if chunk.usage is not None:
            outcome.num_prompt_tokens = chunk.usage.prompt_tokens
            outcome.num_output_tokens = chunk.usage.completion_tokens or 0
            details = chunk.usage.prompt_tokens_details
            outcome.num_cached_tokens = (details.cached_tokens or 0) if details else 0
        if not any(choice.has_text for choice in chunk.choices):
            return
        if outcome.first_token_time is None:
            outcome.first_token_time = now
        else:
            outcome.gaps.append(now - self._last)
        self._last = outcome.last_token_time = now

    def failed(self, message: str) -> Outcome:
        self.outcome.finished_time = time.monotonic()
        self.outcome.error = message
        return self.outcome

    def ended(self) -> Outcome:
        outcome = self.outcome
        outcome.finished_time = time.monotonic()
        if outcome.error is None and not self._is_done:
            outcome.error = "The stream ended early: the server sent no [DONE]."
        elif outcome.error is None and not outcome.num_prompt_tokens:
            outcome.error = "The server sent no usage; tokens cannot be counted."
        return outcome
