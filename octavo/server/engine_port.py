"""What the server needs from an engine. AsyncLLM is one; tests bring a fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from octavo.config.root import EngineConfig
from octavo.engine.outputs import RequestOutput
from octavo.messages.params import SamplingParams
from octavo.messages.result import CoreStats
from octavo.messages.start import CoreReady


class TokenizerPort(Protocol):
    """The part of a tokenizer that the server uses."""

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def chat_template(self) -> str | None: ...

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...

    def token_text(self, token_id: int) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def max_chars_for(self, max_tokens: int) -> int:
        """A text with more characters than this has more than `max_tokens` tokens for sure."""

    def encode_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]: ...


class EnginePort(Protocol):
    """One engine. `generate` checks at the call; closing its iterator aborts the request."""

    @property
    def config(self) -> EngineConfig: ...

    @property
    def tokenizer(self) -> TokenizerPort: ...

    @property
    def ready(self) -> CoreReady: ...

    @property
    def default_sampling(self) -> dict[str, Any]: ...

    @property
    def max_request_tokens(self) -> int:
        """Most tokens, prompt and answer together, that one request can hold."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""

    def generate(
        self,
        prompt: str | list[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> AsyncIterator[RequestOutput]: ...

    async def check_health(self) -> None: ...

    def stats(self) -> CoreStats: ...

    def add_stats_listener(self, listener: Callable[[CoreStats], None]) -> None:
        """Call `listener` after each step of the core, in the event loop."""

    async def drain(self, timeout_s: float) -> None: ...
