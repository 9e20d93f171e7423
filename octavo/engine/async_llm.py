"""AsyncLLM: submit, stream, abort. What the server and asyncio programs use."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import EngineError, ErrorCode, OctavoError
from octavo.config.root import EngineConfig
from octavo.core.policy import queue_bounds
from octavo.core.queue_bound import QueueBound
from octavo.engine.beam_runs import BeamSteps, open_search, stream_search
from octavo.engine.beam_search import BeamSearch
from octavo.engine.core_choice import make_core
from octavo.engine.listeners import Listeners
from octavo.engine.load import Loaded, load_front
from octavo.engine.open_request import OpenRequest, Prepared
from octavo.engine.open_stream import OpenStream, raised_again
from octavo.engine.orders import Orders
from octavo.engine.output_processor import OutputProcessor
from octavo.engine.outputs import RequestOutput
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.pooling.prepare import Input, pooling_preparer
from octavo.engine.pooling.refuse import cannot_pool, cannot_write
from octavo.engine.prepare import EnginePrompt, RequestPreparer, fresh_keys, vector_limits
from octavo.engine.prompt_vectors import MAX_HELD_BYTES
from octavo.engine.rest import Rest
from octavo.engine.resume import Resumption
from octavo.engine.supervised_core import CoreLost, SupervisedCore
from octavo.engine.usage import UsageListener
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.vocabulary import Words, vocabulary_of
from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import SamplingParams
from octavo.messages.pooling import PoolingParams
from octavo.messages.request import PLAIN_TERMS, AbortRequest, PrefixPin, Terms, together
from octavo.messages.result import CoreStats, FinishReason, RequestDelta
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import (
    CoreUpdate,
    Order,
    OrderDone,
    ResetPrefixCache,
    SetLogLevel,
    Sleep,
    StartProfile,
    StopProfile,
)
from octavo.observe.log import set_log_level
from octavo.tokens.template_leash import TemplateLeash

logger = logging.getLogger(__name__)

Out = TypeVar("Out", RequestOutput, PoolingRequestOutput)


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
        self._clock = clock
        self._processor = OutputProcessor(loaded.tokenizer, clock)
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
        self._streams: dict[int, OpenStream] = {}
        self._searches: dict[int, tuple[str, BeamSearch]] = {}
        self._stats = CoreStats.idle(ready.plan.num_blocks - 1)
        self._listeners = Listeners()
        self._bound = QueueBound(queue_bounds(config.schedule), clock)
        self._earlier = CoreStats()
        """What the cores before this one counted."""
        self._falling_asleep: asyncio.Task[OrderDone] | None = None
        self._failure: OctavoError | None = None
        self._failed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._orders = Orders(core.send)
        self._resumption = Resumption(core.send)
        self.rest = Rest(self._order, self._idle.wait, self._abort_all)
        """Pause, sleep and wake."""
        self._receiver = asyncio.create_task(self._receive(), name="octavo-receive")

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        in_process: bool = False,
        on_progress: Callable[[str], None] | None = None,
    ) -> AsyncLLM:
        """Load the model and be ready. in_process keeps the core in a thread instead of a child process."""
        began = time.monotonic()
        core = make_core(in_process)
        await core.launch()
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
    ) -> AsyncGenerator[RequestOutput, None]:
        """Check the request at once (raises RequestError or EngineError), then stream its outputs.

        The request starts with the first step of the iterator. Closing the iterator early aborts it.
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
        self._bound.check(terms, len(prepared.samples), len(prepared.prompt_token_ids))
        if prepared.vector_bytes:
            self._check_vectors(prepared.vector_bytes)
        return self._stream(prepared)

    def beam_search(
        self,
        prompt: str | list[int],
        params: BeamSearchParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        terms: Terms = PLAIN_TERMS,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Like `generate`, for the likeliest answers, best first: one output, at the end."""
        self._check_writes()
        search = open_search(self._preparer, prompt, params, cache_salt)
        self._bound.check(terms, params.beam_width, len(search.prompt_token_ids))
        name = request_id or secrets.token_hex(16)
        steps = BeamSteps(
            self._preparer, request_id=name, priority=priority, cache_salt=cache_salt, terms=terms
        )
        return self._search(name, search, stream_search(search, steps, self._stream, self.tokenizer, name))

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
        return self.encode_many(
            [prompt],
            pooling_params,
            request_id,
            priority=priority,
            cache_salt=cache_salt,
            prompt_name=prompt_name,
        )[0]

    def encode_many(
        self,
        prompts: Sequence[Input],
        pooling_params: PoolingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
        terms: Terms = PLAIN_TERMS,
        prompt_name: str | None = None,
    ) -> list[AsyncGenerator[PoolingRequestOutput, None]]:
        """Check several at once, and tokenize them together. May be slow on long text."""
        if self._pooling is None:
            raise cannot_pool("encode")
        self.check_welcome()
        prepared = self._pooling.prepare(
            prompts,
            pooling_params or PoolingParams(),
            request_id=request_id,
            priority=priority,
            cache_salt=cache_salt,
            terms=terms,
            prompt_name=prompt_name,
        )
        self._bound.check(terms, len(prepared), sum(len(one.prompt_token_ids) for one in prepared))
        return [self._stream(one) for one in prepared]

    async def _search(
        self, name: str, search: BeamSearch, outputs: AsyncGenerator[RequestOutput, None]
    ) -> AsyncGenerator[RequestOutput, None]:
        """Known by its name, and work, also between its steps, where nothing runs."""
        self._searches[id(search)] = name, search
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield output
        finally:
            del self._searches[id(search)]
            self._note_idle()

    def check_welcome(self) -> None:
        """Raise EngineError unless requests are taken: the engine may have failed, be paused or asleep."""
        if self._failure is not None:
            raise raised_again(self._failure)
        self.rest.check_awake()

    def check_room(self, terms: Terms) -> None:
        """Raise OVERLOADED if even the shortest request on these terms would be refused now."""
        self._bound.check(terms, 1, 0)

    def _check_writes(self) -> None:
        self.check_welcome()
        if self._pooling is not None:
            raise cannot_write(self._pooling.facts)

    def _check_vectors(self, num_new: int) -> None:
        held = sum(stream.state.prepared.vector_bytes for stream in self._streams.values())
        if held + num_new > MAX_HELD_BYTES:
            raise EngineError(
                f"The requests that run or wait hold {held} bytes of prompt_embeds; {MAX_HELD_BYTES} are the "
                "most. Try again soon.",
                code=ErrorCode.OVERLOADED,
            )

    async def _stream(self, prepared: Prepared[Out]) -> AsyncGenerator[Out, None]:
        self.check_welcome()
        state = self._processor.open(prepared)
        stream = self._streams[id(state)] = OpenStream(state)
        self._idle.clear()
        terms, num_tokens = prepared.samples[0].terms, len(prepared.samples[0].prompt_token_ids)
        for number, sample in enumerate(prepared.samples):
            # Further samples find the prompt in the cache.
            self._bound.joined(sample.request_id, terms, 0 if number else num_tokens)
        self._listeners.request_begun(terms.tenant, num_tokens)
        try:
            self._core.send(together(prepared.samples))
            while True:
                stream.raise_failure()
                output = state.take_output()
                if output is None:
                    await stream.changed()
                    continue
                yield output
                if output.finished:
                    return
        finally:
            self._forget(state)

    def _forget(self, state: OpenRequest[Any]) -> None:
        stream = self._streams.pop(id(state), None)
        if stream is not None:
            self._resumption.forget(stream)
        unfinished = self._processor.close(state)
        for sample in state.prepared.samples:
            self._bound.left(sample.request_id)
        self._listeners.request_ended(state, self._clock())
        if unfinished and self._failure is None:
            self._core.send(AbortRequest(request_ids=unfinished))
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._streams and not self._searches:
            self._idle.set()

    async def _receive(self) -> None:
        """Take the reports of one core after the other; when there is none any more, fail what is open."""
        try:
            while True:
                try:
                    await self._take_reports()
                except CoreLost as lost:
                    self._lose(lost)
                    await self._core.restart(lost)
                    self._resume()
        except OctavoError as error:
            self._fail(error)
        except Exception:
            # Nobody would take answers any more, and nobody would notice: better to end.
            logger.exception("The engine cannot go on")
            self._fail(EngineError("The engine met an error of its own and cannot go on; its log says more."))

    async def _take_reports(self) -> None:
        while True:
            for message in await self._core.receive():
                if isinstance(message, CoreUpdate):
                    self._update(message)
                elif isinstance(message, OrderDone):
                    self._orders.answered(message)

    def _update(self, update: CoreUpdate) -> None:
        stats = self._stats = (
            update.stats.after(self._earlier) if self._earlier.core_restarts else update.stats
        )
        self._listeners.stats_came(stats)
        self._listeners.blocks_held(update.block_seconds)
        if self._bound.num_waiting:
            for delta in update.deltas:
                if delta.timing is not None:
                    self._bound.began(delta.request_id)
        self._take(update.deltas)

    def _take(self, deltas: list[RequestDelta]) -> None:
        changed, to_abort = self._processor.process(deltas)
        if to_abort:
            self._core.send(AbortRequest(request_ids=to_abort))
        for state in changed:
            # Only a stream that waits runs at all, and then takes all that has come for it as one output.
            if state.has_output:
                self._streams[id(state)].wake()
        if self._resumption.is_careful:
            self._resumption.note_progress()

    def _lose(self, lost: CoreLost) -> None:
        """The core is gone. Requests wait for the next one, orders do not."""
        self._earlier = msgspec.structs.replace(self._stats, core_restarts=self._stats.core_restarts + 1)
        self._stats = CoreStats.idle(self.ready.plan.num_blocks - 1).after(self._earlier)
        self._orders.fail(lambda: raised_again(lost.cause))
        self._resumption.count_losses(self._streams.values())

    def _resume(self) -> None:
        """Send the new core what is open, in the order of arrival."""
        if self.rest.sleep_level:
            self._falling_asleep = asyncio.create_task(self._order(Sleep(level=self.rest.sleep_level)))
        for stream in self._streams.values():
            if stream.is_aborted:
                self._end_here(stream)
        self._resumption.resume(self._streams.values())

    def _end_here(self, stream: OpenStream) -> None:
        """Say what the core would have said to an abort."""
        state = stream.state
        self._take(
            [
                RequestDelta(request_id=sample.request_id, token_ids=[], finish_reason=FinishReason.ABORT)
                for index, sample in enumerate(state.prepared.samples)
                if not state.has_ended(index)
            ]
        )

    def _fail(self, error: OctavoError) -> None:
        self._failure = error
        self._failed.set()
        for stream in self._streams.values():
            stream.fail(raised_again(error))
        self._orders.fail(lambda: raised_again(error))

    async def failed(self) -> OctavoError:
        """Wait until this engine is of no use any more, and say why."""
        await self._failed.wait()
        assert self._failure is not None, "set before the event"
        return self._failure

    async def abort(self, request_id: str) -> None:
        """End a request by the id its outputs carry; its stream ends with finish reason 'abort'."""
        for name, search in self._searches.values():
            if name == request_id:
                search.stop()
        for stream in list(self._streams.values()):
            if stream.state.prepared.request_id == request_id:
                self._abort(stream)

    def open_request_ids(self) -> list[str]:
        """Of all requests that run or wait."""
        return [stream.state.prepared.request_id for stream in self._streams.values()]

    def _abort(self, stream: OpenStream) -> None:
        stream.is_aborted = True
        if self._core.is_down or self._resumption.is_held(stream):
            self._end_here(stream)
        ids = [sample.request_id for sample in stream.state.prepared.samples]
        self._core.send(AbortRequest(request_ids=ids))

    def _abort_all(self) -> None:
        for _, search in self._searches.values():
            search.stop()
        for stream in list(self._streams.values()):
            self._abort(stream)

    async def check_health(self) -> None:
        """Raise EngineError when the engine is dead, being restarted or makes no progress."""
        if self._failure is not None:
            raise raised_again(self._failure)
        self._core.check()

    def stats(self) -> CoreStats:
        """The core's last report."""
        return self._stats

    def add_stats_listener(self, listener: Callable[[CoreStats], None]) -> None:
        """Call `listener` with each report of the core, in the event loop."""
        self._listeners.of_stats.append(listener)

    def add_usage_listener(self, listener: UsageListener) -> None:
        """Tell `listener` of each request that begins and ends."""
        self._listeners.of_usage.append(listener)

    async def reset_prefix_cache(self) -> bool:
        """Forget reusable prefixes; running requests go on without sharing theirs."""
        await self._order(ResetPrefixCache())
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
        await self._order(StartProfile())

    async def stop_profile(self, folder: str) -> str:
        """Write the profile into `folder`. Returns the file's name."""
        done = await self._order(StopProfile(folder=folder))
        assert done.file is not None, "a profile that was written has a name"
        return done.file

    async def set_log_level(self, level: str) -> None:
        """Of this process and the core's."""
        set_log_level(level)
        await self._order(SetLogLevel(level=level))

    async def _order(self, order: Order) -> OrderDone:
        if self._failure is not None:
            raise raised_again(self._failure)
        if self._core.is_down:
            self._core.check()
        return await self._orders.give(order)

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is open; after `timeout_s` abort those that are."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            self._abort_all()

    async def shutdown(self) -> None:
        """End the core. Open streams end with SHUTTING_DOWN."""
        if self._failure is None:
            self._fail(EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN))
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        await self.grammars.close()
        await self.templates.close()
        await self._core.close()
