"""OpenStreams: all that callers of one engine wait for, from their first step to their last output."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from octavo.base.clock import Clock
from octavo.base.errors import OctavoError
from octavo.core.queue_bound import QueueBound
from octavo.engine.admitted_stream import Admission, AdmittedStream
from octavo.engine.beam_search import BeamSearch
from octavo.engine.failure import Failure, raised_again
from octavo.engine.listeners import Listeners
from octavo.engine.open_request import OpenRequest, Prepared
from octavo.engine.open_stream import OpenStream
from octavo.engine.output_processor import OutputProcessor
from octavo.engine.outputs import RequestOutput
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.resume import Resumption
from octavo.engine.supervised_core import SupervisedCore
from octavo.messages.request import AbortRequest, Terms, together
from octavo.messages.result import FinishReason, RequestDelta
from octavo.tokens.tokenizer import Tokenizer

Out = TypeVar("Out", RequestOutput, PoolingRequestOutput)


class OpenStreams:
    """Streams of requests, and beam searches, which are open between their requests, too."""

    def __init__(
        self,
        core: SupervisedCore,
        tokenizer: Tokenizer,
        *,
        check_welcome: Callable[[], None],
        bound: QueueBound,
        listeners: Listeners,
        failure: Failure,
        clock: Clock,
    ) -> None:
        """check_welcome raises unless requests are taken; asked when a stream begins."""
        self._core = core
        self._check_welcome = check_welcome
        self._bound = bound
        self._listeners = listeners
        self._failure = failure
        self._clock = clock
        self._processor = OutputProcessor(tokenizer, clock)
        self._streams: dict[int, OpenStream] = {}
        self._searches: dict[int, tuple[str, BeamSearch]] = {}
        self._resumption = Resumption(core.send)
        self.vector_bytes = 0
        """What all prompts of vectors take, of those that run or are admitted."""
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()

    def __iter__(self) -> Iterator[OpenStream]:
        return iter(self._streams.values())

    async def idle(self) -> None:
        """Wait until nothing is open."""
        await self._idle.wait()

    def admit(self, prepared: Prepared[Out]) -> AsyncGenerator[Out, None]:
        """The outputs of a request that may run. It counts from now on, and is sent with the first step.

        Closing the stream early aborts it.
        """
        return self._open(prepared, self._check_welcome)

    def admit_step(self, prepared: Prepared[Out]) -> AsyncGenerator[Out, None]:
        """The same for a step of a search that was let in before, and goes on while others are refused."""
        return self._open(prepared, self._failure.check)

    def _open(self, prepared: Prepared[Out], check: Callable[[], None]) -> AsyncGenerator[Out, None]:
        first = prepared.samples[0]
        request_ids = [sample.request_id for sample in prepared.samples]
        self._join(request_ids, first.terms, len(first.prompt_token_ids))
        self.vector_bytes += prepared.vector_bytes

        def leave() -> None:
            self._leave(request_ids)
            self.vector_bytes -= prepared.vector_bytes

        admission = Admission(leave)
        return AdmittedStream(self._run(prepared, admission, check), admission, self._loop)

    async def _run(
        self, prepared: Prepared[Out], admission: Admission, check: Callable[[], None]
    ) -> AsyncGenerator[Out, None]:
        """check: raises unless it may still be sent."""
        try:
            check()
        except OctavoError:
            admission.end()
            raise
        state = self._processor.open(prepared)
        stream = self._streams[id(state)] = OpenStream(state)
        self._idle.clear()
        first = prepared.samples[0]
        self._listeners.request_begun(first.terms.tenant, len(first.prompt_token_ids))
        try:
            self._core.send(together(prepared.samples))
            while True:
                while state.catch_up():
                    await asyncio.sleep(0)  # Others' turn: there may be much of it.
                stream.raise_failure()
                output = state.take_output()
                if output is None:
                    await stream.changed()
                    continue
                yield output
                if output.finished:
                    return
        finally:
            admission.end()
            self._forget(state)

    def admit_search(
        self,
        name: str,
        search: BeamSearch,
        outputs: AsyncGenerator[RequestOutput, None],
        terms: Terms,
        width: int,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of a search that may run. It counts from now on, as so many requests as it will have
        at a time."""
        own_id = secrets.token_hex(16)  # Callers may give a name twice.
        request_ids = [f"{own_id}-{number}" for number in range(width)]
        self._join(request_ids, terms, len(search.prompt_token_ids))
        admission = Admission(lambda: self._leave(request_ids))
        return AdmittedStream(self._run_search(name, search, outputs, admission), admission, self._loop)

    async def _run_search(
        self,
        name: str,
        search: BeamSearch,
        outputs: AsyncGenerator[RequestOutput, None],
        admission: Admission,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Known by its name, and work, also between its steps, where nothing runs."""
        admission.end()  # From here on its steps count.
        self._check_welcome()
        self._searches[id(search)] = name, search
        self._idle.clear()
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield output
        finally:
            del self._searches[id(search)]
            self._note_idle()

    def _forget(self, state: OpenRequest[Any]) -> None:
        stream = self._streams.pop(id(state), None)
        if stream is not None:
            self._resumption.forget(stream)
        unfinished = self._processor.close(state)
        self._listeners.request_ended(state, self._clock())
        if unfinished and not self._failure:
            self._core.send(AbortRequest(request_ids=unfinished))
        self._note_idle()

    def _join(self, request_ids: list[str], terms: Terms, num_tokens: int) -> None:
        for number, request_id in enumerate(request_ids):
            # Further ones find the prompt in the cache.
            self._bound.joined(request_id, terms, 0 if number else num_tokens)

    def _leave(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._bound.left(request_id)

    def _note_idle(self) -> None:
        if not self._streams and not self._searches:
            self._idle.set()

    def take(self, deltas: list[RequestDelta]) -> None:
        """What the core has to say of them."""
        if self._bound.num_waiting:
            for delta in deltas:
                if delta.timing is not None:
                    self._bound.began(delta.request_id)
        changed, to_abort = self._processor.process(deltas)
        if to_abort:
            self._core.send(AbortRequest(request_ids=to_abort))
        for state in changed:
            # Only a stream that waits runs at all, and then takes all that has come for it as one output.
            if state.has_output:
                self._streams[id(state)].wake()
        if self._resumption.is_careful:
            self._resumption.note_progress()

    def core_lost(self) -> None:
        """They wait for the next one, unless they lost too many."""
        self._resumption.count_losses(self)

    def resume(self) -> None:
        """Send the new core what is open, in the order of arrival."""
        for stream in self:
            if stream.is_aborted:
                self._end_here(stream)
        self._resumption.resume(self)

    def fail(self, error: OctavoError) -> None:
        """There is no core any more, and will be none."""
        for stream in self:
            stream.fail(raised_again(error))

    def abort(self, request_id: str) -> None:
        """End a request by the id its outputs carry; its stream ends with finish reason 'abort'."""
        for name, search in self._searches.values():
            if name == request_id:
                search.stop()
        for stream in list(self):
            if stream.state.prepared.request_id == request_id:
                self._abort(stream)

    def abort_all(self) -> None:
        for _, search in self._searches.values():
            search.stop()
        for stream in list(self):
            self._abort(stream)

    def _abort(self, stream: OpenStream) -> None:
        stream.is_aborted = True
        if self._core.is_down or self._resumption.is_held(stream):
            self._end_here(stream)
        ids = [sample.request_id for sample in stream.state.prepared.samples]
        self._core.send(AbortRequest(request_ids=ids))

    def _end_here(self, stream: OpenStream) -> None:
        """Say what the core would have said to an abort."""
        state = stream.state
        self.take(
            [
                RequestDelta(request_id=sample.request_id, token_ids=[], finish_reason=FinishReason.ABORT)
                for index, sample in enumerate(state.prepared.samples)
                if not state.has_ended(index)
            ]
        )
