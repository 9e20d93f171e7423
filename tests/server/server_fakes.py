"""A fake engine and tokenizer: one character is one token, answers are known in advance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.config.facts import CheckpointFacts
from octavo.config.root import EngineConfig
from octavo.engine.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.pooling.prepare import Input
from octavo.engine.pooling.refuse import cannot_pool
from octavo.engine.pooling.state import PreparedPooling
from octavo.engine.usage import UsageListener, Used
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.beam import BeamSearchParams
from octavo.messages.kv import KVPlan
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.pooling import PoolingParams
from octavo.messages.prompt_vectors import PromptVectors
from octavo.messages.request import PLAIN_TERMS, PrefixPin, Terms
from octavo.messages.result import CoreStats
from octavo.messages.start import CoreReady
from octavo.tokens.chat_template import TemplateRun
from octavo.tokens.template_leash import TemplateLeash

BOS, EOS = 256, 257
VOCAB = 300
HIDDEN = 4
MAX_TOKENS = 512
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class FakeTokenizer:
    """Latin-1 characters are tokens; 'X' anywhere in a template stands for nothing special."""

    bos_token_id: int | None = BOS
    eos_token_ids: list[int] = [EOS]
    special_tokens: dict[str, str] = {"eos_token": "<eos>"}
    chat_template: str | None = "fake, and shows {{ tools }}"
    response_template: dict[str, Any] | None = None
    strips_first_space = False

    def __init__(self) -> None:
        self.rendered: list[dict[str, Any]] = []
        self.runs: list[TemplateRun | None] = []
        """Who was to run the template, of each that was rendered."""

    def template_for(self, wish: str | None, has_tools: bool) -> str | None:
        return wish if wish is not None else self.chat_template

    def special_ids_in(self, texts: Sequence[str]) -> list[int]:
        return []

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [ord(char) % 256 for char in text]
        return [BOS, *ids] if add_special_tokens and self.bos_token_id is not None else ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        special = "" if skip_special_tokens else "<s>"
        return "".join(chr(i) if i < 256 else special for i in ids)

    def token_text(self, token_id: int) -> str:
        return chr(token_id) if token_id < 256 else f"<{token_id}>"

    def token_bytes(self, token_id: int) -> bytes:
        return self.token_text(token_id).encode()

    def is_special(self, token_id: int) -> bool:
        return token_id >= 256

    def max_chars_for(self, max_tokens: int) -> int:
        return 8 * max_tokens

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
    ) -> list[int]:
        if self.chat_template is None:
            raise RequestError("no template", code=ErrorCode.TEMPLATE_FAILED, param="messages")
        if add_generation_prompt and continue_final_message:
            raise RequestError("exclude each other", param="continue_final_message")
        self.runs.append(run)
        self.rendered.append(
            {
                "messages": messages,
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": continue_final_message,
                "chat_template": chat_template,
                "template_kwargs": dict(template_kwargs or {}),
            }
        )
        text = "".join(f"[{m['role']}]{m['content']}" for m in messages)
        return self.encode(text + ("[assistant]" if add_generation_prompt else ""), False)


def answer_text(prompt: Sequence[int], index: int, length: int) -> str:
    """What sample `index` says to a prompt."""
    start = sum(prompt) + index
    return "".join(ALPHABET[(start + k) % 26] for k in range(length))


def fake_vocabulary() -> Vocabulary:
    """Bytes, and the end."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"", b"<eos>"] + [b""] * (VOCAB - 258)
    return Vocabulary(tokens=tokens, special={"<eos>": EOS}, eos_token_ids=[EOS])


@dataclass
class FakeEngine:
    """Deterministic; counts what is open and what was aborted."""

    config: EngineConfig
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)
    default_sampling: dict[str, Any] = field(default_factory=dict)
    max_request_tokens: int = MAX_TOKENS
    vocab_size: int = VOCAB
    delay_s: float = 0.0
    stall_at: int | None = None
    """Token at which answers wait for ever."""
    fail_at: int | None = None
    """Token at which answers fail with EngineError (0: before the first)."""
    fails_for_good: bool = False
    """And with that answer the engine."""
    failing: asyncio.Event = field(default_factory=asyncio.Event)
    crash_at: int | None = None
    """The same with an exception that is a bug."""
    refuse: Exception | None = None
    is_full: bool = False
    """Refuse before anything is read."""
    room: int = 10**6
    """For so many requests at a time."""
    health: Exception | None = None
    num_open: int = 0
    num_aborted: int = 0
    num_started: int = 0
    seen: list[tuple[list[int], SamplingParams, dict[str, Any]]] = field(default_factory=list)
    pins: list[list[PrefixPin]] = field(default_factory=list)
    """Of each request that was seen."""
    terms: list[Terms] = field(default_factory=list)
    vectors: list[PromptVectors] = field(default_factory=list)
    """Prompts that were no tokens."""
    searches: list[BeamSearchParams] = field(default_factory=list)
    breakers_found: list[SamplingParams] = field(default_factory=list)
    """Params whose breakers were searched for beside the loop."""
    usage_listeners: list[UsageListener] = field(default_factory=list)
    listeners: list[Callable[[CoreStats], None]] = field(default_factory=list)
    is_shut_down: bool = False
    grammars: GrammarDesk = field(default_factory=lambda: GrammarDesk(fake_vocabulary))
    templates: TemplateLeash = field(default_factory=TemplateLeash)
    facts: CheckpointFacts = field(
        default_factory=lambda: CheckpointFacts(
            name="fake",
            architecture="FakeForCausalLM",
            model_max_len=MAX_TOKENS,
            vocab_size=VOCAB,
            stored_dtype="Q4_1",
        )
    )

    def __post_init__(self) -> None:
        plan = KVPlan(block_size=16, num_blocks=64, groups=[], page_bytes=1)
        self.ready = CoreReady(
            plan=plan,
            max_request_tokens=self.max_request_tokens,
            vocab_size=self.vocab_size,
            hidden_size=HIDDEN,
            memory_bytes={},
            seconds={},
        )

    async def make_ready(self, params: SamplingParams) -> None:
        self.breakers_found.append(params)

    def generate(
        self,
        prompt: str | list[int] | PromptVectors,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        pins: Sequence[PrefixPin] = (),
        terms: Terms = PLAIN_TERMS,
        has_room: bool = False,
    ) -> AsyncIterator[RequestOutput]:
        if self.refuse is not None:
            raise self.refuse
        params.check(self.vocab_size)
        if isinstance(prompt, PromptVectors):
            self.vectors.append(prompt)
            prompt = [0] * prompt.num_tokens
        assert isinstance(prompt, list) and prompt, "the server tokenizes"
        assert all(0 <= token < self.vocab_size for token in prompt)
        assert len(prompt) + (params.max_tokens or 1) <= self.max_request_tokens
        self.seen.append((prompt, params, {"priority": priority, "cache_salt": cache_salt}))
        self.pins.append(list(pins))
        self.terms.append(terms)
        return self._told(terms, prompt, self._stream(prompt, params, request_id or "id"))

    def check_room(self, terms: Terms, num_requests: int = 1, num_tokens: int = 0) -> None:
        if self.is_full or num_requests > self.room:
            raise EngineError("Full.", code=ErrorCode.OVERLOADED, retry_after_s=6.2)

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
        """As many samples as are wanted of the search, in one output."""
        params.check()
        self.searches.append(params)
        plain = SamplingParams(
            n=params.n or params.beam_width,
            max_tokens=params.max_tokens,
            logprobs=params.logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        return self.generate(
            prompt, plain, request_id=request_id, priority=priority, cache_salt=cache_salt, terms=terms
        )

    async def _told(
        self, terms: Terms, prompt: list[int], outputs: AsyncIterator[RequestOutput]
    ) -> AsyncIterator[RequestOutput]:
        """The same outputs, while who keeps books is told of them."""
        num_tokens = num_cached = 0
        for listener in self.usage_listeners:
            listener.begun(terms.tenant, len(prompt))
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    num_tokens += sum(len(part.token_ids) for part in output.outputs)
                    num_cached = output.num_cached_tokens
                    yield output
        finally:
            used = Used(cached_tokens=num_cached, output_tokens=num_tokens, seconds=0.5)
            for listener in self.usage_listeners:
                listener.ended(terms.tenant, used)
                listener.held(terms.tenant, 1.5)

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
        """This engine writes."""
        raise cannot_pool("encode")

    def encode_prepared(
        self, prepared: Sequence[PreparedPooling]
    ) -> Sequence[AsyncIterator[PoolingRequestOutput]]:
        raise AssertionError("nothing is prepared")

    async def _stream(
        self, prompt: list[int], params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        self.num_open += 1
        self.num_started += 1
        is_done = False
        length = params.max_tokens or 8
        texts = [answer_text(prompt, index, length) for index in range(params.n)]
        metrics = RequestMetrics(arrival_time=time.monotonic(), num_prompt_tokens=len(prompt))
        metrics.first_scheduled_time = time.monotonic()
        try:
            for position in range(length):
                await self._trouble(position)
                await asyncio.sleep(self.delay_s)
                metrics.last_token_time = time.monotonic()
                metrics.first_token_time = metrics.first_token_time or metrics.last_token_time
                metrics.num_output_tokens += params.n
                is_last = position == length - 1
                if is_last:
                    metrics.finished_time = time.monotonic()
                if params.output_kind is RequestOutputKind.FINAL_ONLY and not is_last:
                    continue
                whole = params.output_kind is RequestOutputKind.FINAL_ONLY
                is_done = is_last
                yield self._output(prompt, params, request_id, texts, position, whole, is_last, metrics)
        finally:
            self.num_open -= 1
            if not is_done:
                self.num_aborted += 1

    async def _trouble(self, position: int) -> None:
        if self.fail_at == position:
            if self.fails_for_good:
                self.failing.set()
            raise EngineError("The step failed.")
        if self.crash_at == position:
            raise ZeroDivisionError("a secret detail")
        while self.stall_at == position:
            await asyncio.sleep(0.005)
            if self.is_shut_down:
                raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)

    def _output(
        self,
        prompt: list[int],
        params: SamplingParams,
        request_id: str,
        texts: list[str],
        position: int,
        whole: bool,
        is_last: bool,
        metrics: RequestMetrics,
    ) -> RequestOutput:
        begin = 0 if whole else position
        outputs = []
        for index, text in enumerate(texts):
            part = text[begin : position + 1]
            ids = [ord(char) for char in part]
            outputs.append(
                CompletionOutput(
                    index=index,
                    text=part,
                    token_ids=ids,
                    logprobs=None
                    if params.logprobs is None
                    else [position_of(i, params.logprobs) for i in ids],
                    finish_reason="length" if is_last else None,
                )
            )
        shows_prompt = params.prompt_logprobs is not None and (whole or position == 0)
        return RequestOutput(
            request_id=request_id,
            prompt=None,
            prompt_token_ids=prompt,
            prompt_logprobs=[None, *(position_of(i, params.prompt_logprobs or 0) for i in prompt[1:])]
            if shows_prompt
            else None,
            outputs=outputs,
            finished=is_last,
            metrics=metrics,
            num_cached_tokens=len(prompt) // 2,
        )

    def check_welcome(self) -> None:
        if self.refuse is not None:
            raise self.refuse

    async def check_health(self) -> None:
        if self.health is not None:
            raise self.health

    def stats(self) -> CoreStats:
        return CoreStats(
            num_running=self.num_open, num_blocks=64, num_free_blocks=48, prompt_tokens=7, generation_tokens=9
        )

    def add_stats_listener(self, listener: Callable[[CoreStats], None]) -> None:
        self.listeners.append(listener)

    def add_usage_listener(self, listener: UsageListener) -> None:
        self.usage_listeners.append(listener)

    async def failed(self) -> EngineError:
        """Says so with the answer that failed."""
        await self.failing.wait()
        return EngineError("The engine failed for good.")

    async def drain(self, timeout_s: float) -> None:
        self.is_shut_down = True

    async def shutdown(self) -> None:
        self.is_shut_down = True


def position_of(token_id: int, top: int) -> dict[int, Logprob]:
    """The token itself at -1 with rank 2, then the best ones: the next characters, likelier first."""
    position = {token_id: Logprob(-1.0, 2, chr(token_id % 256))}
    for rank in range(1, top + 1):
        other = (token_id + rank) % 256
        position[other] = Logprob(-0.5 * rank if rank < 3 else float("-inf"), rank, chr(other))
    return position


def fake_config(**options: Any) -> EngineConfig:
    return EngineConfig.from_options(
        {
            "served_model_name": ["fake", "alias"],
            "max_model_len": MAX_TOKENS,
            "enable_prefix_caching": True,
            **options,
        }
    )
