"""What the server needs from an engine. AsyncLLM is one; tests bring a fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from octavo.config.facts import CheckpointFacts
from octavo.config.root import EngineConfig
from octavo.engine.outputs import RequestOutput
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.pooling.prepare import Input
from octavo.engine.pooling.state import PreparedPooling
from octavo.engine.prepare import EnginePrompt
from octavo.engine.usage import UsageListener
from octavo.grammar.desk import GrammarDesk
from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import SamplingParams
from octavo.messages.pooling import PoolingParams
from octavo.messages.request import PLAIN_TERMS, PrefixPin, Terms
from octavo.messages.result import CoreStats
from octavo.messages.start import CoreReady
from octavo.tokens.chat_template import TemplateRun
from octavo.tokens.template_leash import TemplateLeash


class TokenizerPort(Protocol):
    """The part of a tokenizer that the server uses."""

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def eos_token_ids(self) -> list[int]: ...

    @property
    def special_tokens(self) -> dict[str, str]: ...

    @property
    def chat_template(self) -> str | None: ...

    @property
    def strips_first_space(self) -> bool:
        """Whether a text is shown without a space that its first token begins with."""

    def template_for(self, wish: str | None, has_tools: bool) -> str | None:
        """The chat template that `encode_chat` would take, None if there is none."""

    def special_ids_in(self, texts: Sequence[str]) -> list[int]:
        """Special tokens that are written out in one of the texts."""

    @property
    def response_template(self) -> dict[str, Any] | None:
        """What the checkpoint says about how its answers are written."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str: ...

    def token_text(self, token_id: int) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def is_special(self, token_id: int) -> bool: ...

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
        run: TemplateRun | None = None,
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
    def facts(self) -> CheckpointFacts:
        """What the model's files say."""

    @property
    def default_sampling(self) -> dict[str, Any]: ...

    @property
    def templates(self) -> TemplateLeash:
        """Where templates of requests are run."""

    @property
    def grammars(self) -> GrammarDesk:
        """Checks the forms that answers shall have."""

    @property
    def max_request_tokens(self) -> int:
        """Most tokens, prompt and answer together, that one request can hold."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""

    async def make_ready(self, params: SamplingParams) -> None:
        """Make of bad words, stop strings and breakers what takes long, so that `generate` has not to."""

    def generate(
        self,
        prompt: EnginePrompt,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        pins: Sequence[PrefixPin] = (),
        terms: Terms = PLAIN_TERMS,
        has_room: bool = False,
    ) -> AsyncIterator[RequestOutput]:
        """has_room: `check_room` was asked, for this and others together."""

    def beam_search(
        self,
        prompt: str | list[int],
        params: BeamSearchParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        terms: Terms = PLAIN_TERMS,
        has_room: bool = False,
    ) -> AsyncIterator[RequestOutput]:
        """Like `generate`, with one output, at the end: the likeliest answers."""

    def prepare_many(
        self,
        prompts: Sequence[Input],
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
        terms: Terms = PLAIN_TERMS,
        prompt_name: str | None = None,
    ) -> Sequence[PreparedPooling]:
        """Of a model that answers with numbers: checked and tokenized. May be called in a thread."""

    def encode_prepared(
        self, prepared: Sequence[PreparedPooling]
    ) -> Sequence[AsyncIterator[PoolingRequestOutput]]:
        """Admit them: one stream with one output for each."""

    async def check_health(self) -> None: ...

    def check_welcome(self) -> None:
        """Raise EngineError unless requests are taken now."""

    def check_room(self, terms: Terms, num_requests: int = 1, num_tokens: int = 0) -> None:
        """Raise OVERLOADED if so many requests, with so many prompt tokens together, would be refused now;
        by default the shortest one."""

    def stats(self) -> CoreStats: ...

    def add_stats_listener(self, listener: Callable[[CoreStats], None]) -> None:
        """Call `listener` after each step of the core, in the event loop."""

    def add_usage_listener(self, listener: UsageListener) -> None:
        """Tell `listener` of each request that begins and ends, in the event loop."""

    async def drain(self, timeout_s: float) -> None: ...
