"""AsyncLLM: submit, stream, abort. What the server and asyncio programs use."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import EngineError, ErrorCode, OctavoError
from octavo.config.root import EngineConfig
from octavo.core.policy import queue_bounds
from octavo.core.queue_bound import QueueBound
from octavo.engine.beam_runs import BeamSteps, open_search, stream_search
from octavo.engine.core_choice import launch_core
from octavo.engine.core_totals import CoreTotals
from octavo.engine.failure import Failure
from octavo.engine.listeners import Listeners
from octavo.engine.load import Loaded, load_front
from octavo.engine.open_streams import OpenStreams
from octavo.engine.orders import Orders
from octavo.engine.outputs import RequestOutput
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.pooling.prepare import Input, pooling_preparer
from octavo.engine.pooling.refuse import cannot_pool, cannot_write
from octavo.engine.pooling.state import PreparedPooling
from octavo.engine.prepare import EnginePrompt, RequestPreparer, fresh_keys, vector_limits
from octavo.engine.prompt_vectors import check_room_for
from octavo.engine.receiver import Receiver
from octavo.engine.rest import Rest
from octavo.engine.supervised_core import SupervisedCore
from octavo.engine.usage import UsageListener
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.vocabulary import Words, vocabulary_of
from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import SamplingParams
from octavo.messages.pooling import PoolingParams
from octavo.messages.request import PLAIN_TERMS, PrefixPin, Terms
from octavo.messages.result import CoreStats
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import ResetPrefixCache, SetLogLevel, StartProfile, StopProfile
from octavo.observe.log import set_log_level
from octavo.tokens.template_leash import TemplateLeash


class AsyncLLM:
    """One engine with one core. Make it with `await AsyncLLM.start(config)`; end it with `shutdown()`."""

    def __init__(
        self, loaded: Loaded, ready: CoreReady, core: SupervisedCore, clock: Clock = monotonic
    ) -> None:
        config = loaded.config
        assert config.model.max_model_len is not None, "the config is resolved"
        self.config = config
        self.reasons = loaded.reasons
        self.tokenizer = loaded.tokenizer
        self.ready = ready
        self.checkpoint_name = loaded.checkpoint_name
        self.facts = loaded.facts
        self.default_sampling = loaded.default_sampling
        self.max_model_len = config.model.max_model_len
        self.max_request_tokens = ready.max_request_tokens
        self.vocab_size = ready.vocab_size
        self._core = core
        words = Words(tokenizer=loaded.tokenizer, eos_token_ids=loaded.eos_token_ids)
        self.templates = TemplateLeash()
        self.grammars = GrammarDesk(lambda: vocabulary_of(words, ready.vocab_size))
        """Where a server has the forms of answers checked, before it calls `generate`."""
        self._preparer = RequestPreparer(
            words=words,
            vocab_size=ready.vocab_size,
            max_model_len=config.model.max_model_len,
            max_request_tokens=ready.max_request_tokens,
            max_logprobs=config.model.max_logprobs,
            random_keys=fresh_keys,
            is_same_process=core.is_same_process,
            grammars=self.grammars,
            vectors=vector_limits(config.model, ready),
            clock=clock,
        )
        self._pooling = pooling_preparer(loaded.facts, loaded.tokenizer, ready)
        self._bound = QueueBound(queue_bounds(config.schedule), clock)
        self._listeners = Listeners()
        self._totals = CoreTotals(ready.plan.num_blocks - 1)
        self._failure = Failure()
        self._streams = OpenStreams(
            core,
            loaded.tokenizer,
            check_welcome=self.check_welcome,
            bound=self._bound,
            listeners=self._listeners,
            failure=self._failure,
            clock=clock,
        )
        self._orders = Orders(core, self._failure)
        self.rest = Rest(self._orders.give, self._streams.idle, self._streams.abort_all)
        """Pause, sleep and wake."""
        self._receiver = Receiver(
            core,
            streams=self._streams,
            orders=self._orders,
            rest=self.rest,
            totals=self._totals,
            listeners=self._listeners,
            failure=self._failure,
        )

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        in_process: bool = False,
        core: SupervisedCore | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> AsyncLLM:
        """Load the model and be ready.

        in_process keeps the core in a thread instead of a child process; core: one that was launched already.
        """
        began = time.monotonic()
        core = core or await launch_core(in_process)
        try:
            loaded = await asyncio.to_thread(load_front, config, on_progress)
        except BaseException:
            await core.close()
            raise
        if on_progress is not None:
            on_progress("Loading weights")
        core_began = time.monotonic()
        ready = await core.start(StartCore(config=loaded.config, path=str(loaded.path)))
        core_s = time.monotonic() - core_began
        # Whatever the core did not account for went into the rest of starting its process, Python and torch.
        loaded.seconds["start core process"] = max(0.0, core_s - sum(ready.seconds.values()))
        loaded.seconds.update(ready.seconds)
        total = time.monotonic() - began
        loaded.seconds["other"] = max(0.0, total - sum(loaded.seconds.values()))
        ready.seconds.clear()
        ready.seconds.update(loaded.seconds)
        return cls(loaded, ready, core)

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
    ) -> AsyncGenerator[RequestOutput, None]:
        """Check the request at once (raises RequestError or EngineError), then stream its outputs.

        The request counts as waiting from now on, and starts with the first step of the iterator. Closing the
        iterator early aborts it. has_room: `check_room` was asked, for several requests together.
        """
        self._check_writes()
        prepared = self._preparer.prepare(
            prompt,
            params,
            request_id=request_id,
            priority=priority,
            cache_salt=cache_salt,
            pins=pins,
            terms=terms,
        )
        if not has_room:
            self._bound.check(terms, len(prepared.samples), len(prepared.prompt_token_ids))
        if prepared.vector_bytes:
            check_room_for(prepared.vector_bytes, held=self._streams.vector_bytes)
        return self._streams.admit(prepared)

    async def make_ready(self, params: SamplingParams) -> None:
        """Make of the caller's words what takes long, in a thread; `generate` would do so in the event loop.

        The breakers of DRY take up to a quarter of a second once, then milliseconds where they are new; many
        bad words or long stop strings a tenth of a second. What was made is kept. Raises RequestError if
        breakers are of no use here.
        """
        if self._preparer.words.takes_long(params):
            await asyncio.to_thread(self._preparer.words.make, params)

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
    ) -> AsyncGenerator[RequestOutput, None]:
        """Like `generate`, for the likeliest answers, best first: one output, at the end."""
        self._check_writes()
        search = open_search(self._preparer, prompt, params, cache_salt)
        if not has_room:
            self._bound.check(terms, params.beam_width, len(search.prompt_token_ids))
        name = request_id or secrets.token_hex(16)
        steps = BeamSteps(
            self._preparer, request_id=name, priority=priority, cache_salt=cache_salt, terms=terms
        )
        outputs = stream_search(search, steps, self._streams.admit_step, self.tokenizer, name)
        return self._streams.admit_search(name, search, outputs, terms, params.beam_width)

    def encode(
        self,
        prompt: Input,
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
        prompt_name: str | None = None,
    ) -> AsyncGenerator[PoolingRequestOutput, None]:
        """Like `generate`, for a model that answers with numbers: one output, at the end."""
        prepared = self.prepare_many(
            [prompt],
            pooling_params,
            request_id,
            priority=priority,
            cache_salt=cache_salt,
            prompt_name=prompt_name,
        )
        return self.encode_prepared(prepared)[0]

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
    ) -> list[PreparedPooling]:
        """Check several at once, and tokenize them together. Slow on long text: call it in a thread then."""
        if self._pooling is None:
            raise cannot_pool("encode")
        self.check_welcome()
        return self._pooling.prepare(
            prompts,
            pooling_params or PoolingParams(),
            request_id=request_id,
            priority=priority,
            cache_salt=cache_salt,
            terms=terms,
            prompt_name=prompt_name,
        )

    def encode_prepared(
        self, prepared: Sequence[PreparedPooling]
    ) -> list[AsyncGenerator[PoolingRequestOutput, None]]:
        """Admit them all at once, in the event loop. Raises EngineError."""
        self.check_welcome()
        num_tokens = sum(len(one.prompt_token_ids) for one in prepared)
        self._bound.check(prepared[0].samples[0].terms, len(prepared), num_tokens)
        return [self._streams.admit(one) for one in prepared]

    def check_welcome(self) -> None:
        """Raise EngineError unless requests are taken: the engine may have failed, be paused or asleep."""
        self._failure.check()
        self.rest.check_awake()

    def check_room(self, terms: Terms, num_requests: int = 1, num_tokens: int = 0) -> None:
        """Raise OVERLOADED if so many requests, with so many prompt tokens together, would be refused now;
        by default the shortest one."""
        self._bound.check(terms, num_requests, num_tokens)

    def _check_writes(self) -> None:
        self.check_welcome()
        if self._pooling is not None:
            raise cannot_write(self._pooling.facts)

    async def failed(self) -> OctavoError:
        """Wait until this engine is of no use any more, and say why."""
        return await self._failure.wait()

    async def abort(self, request_id: str) -> None:
        """End a request by the id its outputs carry; its stream ends with finish reason 'abort'."""
        self._streams.abort(request_id)

    def open_request_ids(self) -> list[str]:
        """Of all requests that run or wait."""
        return [stream.state.prepared.request_id for stream in self._streams]

    async def check_health(self) -> None:
        """Raise EngineError when the engine is dead, being restarted or makes no progress."""
        self._failure.check()
        self._core.check()

    def stats(self) -> CoreStats:
        """The core's last report."""
        return self._totals.stats

    def add_stats_listener(self, listener: Callable[[CoreStats], None]) -> None:
        """Call `listener` with each report of the core, in the event loop."""
        self._listeners.of_stats.append(listener)

    def add_usage_listener(self, listener: UsageListener) -> None:
        """Tell `listener` of each request that begins and ends."""
        self._listeners.of_usage.append(listener)

    async def reset_prefix_cache(self) -> bool:
        """Forget reusable prefixes; running requests go on without sharing theirs."""
        await self._orders.give(ResetPrefixCache())
        return True

    async def sleep(self, level: int = 1, mode: str = "wait") -> None:
        """Give memory back: 1 the KV cache (a GPU's weights move to the host), 2 the weights too.

        Meanwhile requests are refused with ASLEEP. Those that run end first; mode "abort" ends them.
        """
        await self.rest.sleep(level, mode)

    async def wake_up(self) -> None:
        """Take the memory again; after level 2 the weights come from the checkpoint. Nothing is cached."""
        await self.rest.wake_up()

    async def is_sleeping(self) -> bool:
        return self.rest.sleep_level > 0

    async def start_profile(self) -> None:
        """Record what the core and its worker do, until stop_profile."""
        await self._orders.give(StartProfile())

    async def stop_profile(self, folder: str) -> str:
        """Write the profile into `folder`. Returns the file's name."""
        done = await self._orders.give(StopProfile(folder=folder))
        assert done.file is not None, "a profile that was written has a name"
        return done.file

    async def set_log_level(self, level: str) -> None:
        """Of this process and the core's."""
        set_log_level(level)
        await self._orders.give(SetLogLevel(level=level))

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is open; after `timeout_s` abort those that are."""
        try:
            await asyncio.wait_for(self._streams.idle(), timeout_s)
        except TimeoutError:
            self._streams.abort_all()

    async def shutdown(self) -> None:
        """End the core. Open streams end with SHUTTING_DOWN."""
        await self._receiver.close(EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN))
        await self.grammars.close()
        await self.templates.close()
        await self._core.close()
