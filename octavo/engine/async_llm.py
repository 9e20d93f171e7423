"""AsyncLLM: submit, stream, abort. What the server and asyncio programs use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from octavo.base.clock import monotonic
from octavo.base.errors import EngineError, ErrorCode, OctavoError
from octavo.config.root import EngineConfig
from octavo.engine.core_client import CoreClient
from octavo.engine.core_process import ProcessCore
from octavo.engine.load import Loaded, load_front
from octavo.engine.output_processor import OutputProcessor
from octavo.engine.outputs import RequestOutput
from octavo.engine.prepare import RequestPreparer, fresh_keys
from octavo.engine.request_state import PreparedRequest, RequestState
from octavo.messages.params import SamplingParams
from octavo.messages.request import AbortRequest
from octavo.messages.result import CoreStats
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import CoreUpdate, PrefixCacheReset, ResetPrefixCache

STALL_S = 60.0
"""With work in flight and no sign of life for this long, the engine counts as stuck."""


class AsyncLLM:
    """One engine with one core. Make it with `await AsyncLLM.start(config)`; end it with `shutdown()`."""

    def __init__(self, loaded: Loaded, ready: CoreReady, core: CoreClient) -> None:
        config = loaded.config
        assert config.model.max_model_len is not None, "the config is resolved"
        self.config = config
        self.reasons = loaded.reasons
        self.tokenizer = loaded.tokenizer
        self.ready = ready
        self.checkpoint_name = loaded.checkpoint_name
        self.default_sampling = loaded.default_sampling
        self.max_model_len = config.model.max_model_len
        self.max_request_tokens = ready.max_request_tokens
        self.vocab_size = ready.vocab_size
        self._core = core
        self._processor = OutputProcessor(loaded.tokenizer)
        self._preparer = RequestPreparer(
            tokenizer=loaded.tokenizer,
            eos_token_ids=loaded.eos_token_ids,
            vocab_size=ready.vocab_size,
            max_model_len=config.model.max_model_len,
            max_request_tokens=ready.max_request_tokens,
            max_logprobs=config.model.max_logprobs,
            random_keys=fresh_keys,
            is_same_process=core.is_same_process,
        )
        self._streams: dict[int, _Stream] = {}
        self._stats = CoreStats(num_blocks=ready.plan.num_blocks)
        self._stats_listeners: list[Callable[[CoreStats], None]] = []
        self._last_sign = monotonic()
        self._failure: OctavoError | None = None
        self._resets: list[asyncio.Future[bool]] = []
        self._idle = asyncio.Event()
        self._idle.set()
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
        core = _make_core(in_process)
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
        prompt: str | list[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Check the request at once (raises RequestError or EngineError), then stream its outputs.

        The request starts with the first step of the iterator. Closing the iterator early aborts it.
        """
        if self._failure is not None:
            raise _again(self._failure)
        prepared = self._preparer.prepare(
            prompt, params, request_id=request_id, priority=priority, cache_salt=cache_salt
        )
        self._check_queue(len(prepared.samples))
        return self._stream(prepared)

    def _check_queue(self, num_new: int) -> None:
        schedule = self.config.schedule
        bound = schedule.max_num_queued_reqs
        assert schedule.max_num_seqs is not None, "the config is resolved"
        if bound and len(self._processor) + num_new > bound + schedule.max_num_seqs:
            raise EngineError(
                f"{len(self._processor)} requests run or wait; the queue holds {bound}. Try again soon.",
                code=ErrorCode.OVERLOADED,
            )

    async def _stream(self, prepared: PreparedRequest) -> AsyncGenerator[RequestOutput, None]:
        if self._failure is not None:
            raise _again(self._failure)
        state = self._processor.open(prepared)
        stream = self._streams[id(state)] = _Stream(state)
        self._idle.clear()
        try:
            for sample in prepared.samples:
                self._core.send(sample)
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

    def _forget(self, state: RequestState) -> None:
        self._streams.pop(id(state), None)
        unfinished = self._processor.close(state)
        if unfinished and self._failure is None:
            self._core.send(AbortRequest(request_ids=unfinished))
        if not self._streams:
            self._idle.set()

    async def _receive(self) -> None:
        """Take the core's reports until it ends; then fail every open stream with the cause."""
        try:
            while True:
                messages = await self._core.receive()
                self._last_sign = monotonic()
                for message in messages:
                    if isinstance(message, CoreUpdate):
                        self._update(message)
                    elif isinstance(message, PrefixCacheReset) and self._resets:
                        self._resets.pop(0).set_result(message.done)
        except OctavoError as error:
            self._fail(error)

    def _update(self, update: CoreUpdate) -> None:
        self._stats = update.stats
        for listener in self._stats_listeners:
            listener(update.stats)
        changed, to_abort = self._processor.process(update.deltas)
        if to_abort:
            self._core.send(AbortRequest(request_ids=to_abort))
        for state in changed:
            # Only a stream that waits runs at all, and then takes all that has come for it as one output.
            if state.has_output:
                self._streams[id(state)].wake()

    def _fail(self, error: OctavoError) -> None:
        self._failure = error
        for stream in self._streams.values():
            stream.fail(_again(error))
        for reset in self._resets:
            reset.set_exception(_again(error))
        self._resets.clear()

    async def abort(self, request_id: str) -> None:
        """End a request by the id its outputs carry; its stream ends with finish reason 'abort'."""
        for stream in list(self._streams.values()):
            if stream.state.prepared.request_id == request_id:
                ids = [sample.request_id for sample in stream.state.prepared.samples]
                self._core.send(AbortRequest(request_ids=ids))

    async def check_health(self) -> None:
        """Raise EngineError when the engine is dead or stuck."""
        if self._failure is not None:
            raise _again(self._failure)
        silent_s = monotonic() - self._last_sign
        if self._streams and silent_s > STALL_S:
            raise EngineError(f"The engine has work but gave no sign of life for {silent_s:.0f} s.")

    def stats(self) -> CoreStats:
        """The core's last report."""
        return self._stats

    def add_stats_listener(self, listener: Callable[[CoreStats], None]) -> None:
        """Call `listener` with each report of the core, in the event loop."""
        self._stats_listeners.append(listener)

    async def reset_prefix_cache(self) -> bool:
        """Forget reusable prefixes; running requests go on without sharing theirs."""
        if self._failure is not None:
            raise _again(self._failure)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._resets.append(done)
        self._core.send(ResetPrefixCache())
        return await done

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is open; after `timeout_s` abort those that are."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            for stream in list(self._streams.values()):
                await self.abort(stream.state.prepared.request_id)

    async def shutdown(self) -> None:
        """End the core. Open streams end with SHUTTING_DOWN."""
        if self._failure is None:
            self._fail(EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN))
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        await self._core.close()


class _Stream:
    """Where one consumer waits for its request. Hot path: once per token of each stream."""

    __slots__ = ("_error", "_waiter", "state")

    def __init__(self, state: RequestState) -> None:
        self.state = state
        self._error: OctavoError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: OctavoError) -> None:
        self._error = error
        self.wake()

    def raise_failure(self) -> None:
        if self._error is not None:
            raise self._error
        if self.state.error is not None:
            raise EngineError(self.state.error)

    def changed(self) -> asyncio.Future[None]:
        """Done when there is something to look at that was not there at the call."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter


def _again(error: OctavoError) -> OctavoError:
    """A fresh exception of the same kind: one traceback per raise."""
    return type(error)(error.message, code=error.code, param=error.param)


def _make_core(in_process: bool) -> CoreClient:
    if not in_process:
        return ProcessCore()
    # These import torch, which a server process must not.
    from octavo.engine.core_start import start_core
    from octavo.engine.core_thread import ThreadCore

    return ThreadCore(start_core)
