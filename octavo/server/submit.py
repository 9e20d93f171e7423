"""Submission: one body's prompts in the engine, from admission to the last output, with its measures.

Hot path: `outputs` runs once per streamed token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from octavo.base.clock import monotonic
from octavo.base.errors import EngineError, ErrorCode, OctavoError
from octavo.engine.outputs import RequestOutput
from octavo.observe.latency import inter_token_latency
from octavo.server.merge import Item, close_all, merged
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.serving import Serving
from octavo.server.tenants.caller import Caller, current_caller

LONGEST_TURN_S = 0.005
"""So long prompts of one body are admitted in one go, before others are served."""


class Submission:
    """Runs what was admitted (see `submit`)."""

    def __init__(
        self, serving: Serving, rendered: Rendered, streams: Sequence[AsyncIterator[RequestOutput]]
    ) -> None:
        """streams: of the prompts, in their order."""
        self._serving = serving
        self._rendered = rendered
        self._streams = streams
        self._num_open_samples = rendered.params.n * len(rendered.prompts)
        self._last_output: dict[tuple[int, int], float] = {}
        """By prompt and sample."""
        self._end_reason = "abort"

    async def outputs(self) -> AsyncGenerator[Item, None]:
        """(index of the prompt, output) until all have finished. Closing it early aborts the rest."""
        streams = self._streams
        try:
            if len(streams) == 1:  # Nearly always: each token has a generator less to pass.
                async for output in streams[0]:
                    self._note(0, output)
                    yield 0, output
            else:
                async with aclosing(merged(streams)) as items:
                    async for index, output in items:
                        self._note(index, output)
                        yield index, output
        except Exception:
            self._end_reason = "error"
            raise
        finally:
            await close_all(streams)
            if self._serving.metrics is not None and self._num_open_samples:
                self._serving.metrics.samples_ended([self._end_reason] * self._num_open_samples)

    async def results(self) -> list[RequestOutput]:
        """The last output of each prompt, in the order of the prompts."""
        last: dict[int, RequestOutput] = {}
        async for index, output in self.outputs():
            last[index] = output
        return [last[index] for index in range(len(self._streams))]

    def _note(self, index: int, output: RequestOutput) -> None:
        reasons: list[str] = []
        metrics = self._serving.metrics
        now = monotonic()
        for part in output.outputs:
            if part.finish_reason is not None:
                reasons.append(part.finish_reason)
            if metrics is not None:
                before = self._last_output.get((index, part.index))
                if before is not None:
                    metrics.token_gap(inter_token_latency(before, now, len(part.token_ids)))
                self._last_output[index, part.index] = now
        if reasons:
            self._note_end(reasons, output)

    def _note_end(self, reasons: list[str], output: RequestOutput) -> None:
        self._check_not_aborted(reasons)
        self._num_open_samples -= len(reasons)
        metrics = self._serving.metrics
        if metrics is None:
            return
        metrics.samples_ended(reasons)
        if output.finished and output.metrics is not None:
            metrics.request_finished(
                output.metrics,
                n=self._rendered.params.n,
                max_tokens=self._rendered.max_tokens,
                num_cached_tokens=output.num_cached_tokens,
            )

    def _check_not_aborted(self, reasons: list[str]) -> None:
        """An abort the caller did not ask for is an error, not an answer."""
        if "abort" not in reasons:
            return
        if self._serving.lifecycle.is_draining:
            raise EngineError(
                "The server shut down before the answer was complete.", code=ErrorCode.SHUTTING_DOWN
            )
        raise EngineError("The engine ended the request before its answer was complete.")


async def submit(serving: Serving, rendered: Rendered, request_id: str) -> Submission:
    """Admit all prompts of a body, or none. Raises what the engine says against any of them."""
    caller = current_caller()
    if rendered.timeout_s is not None:
        caller = caller.within(rendered.timeout_s, "request_timeout")
    caller.check_priority(rendered.priority)
    streams: list[AsyncIterator[RequestOutput]] = []
    try:
        is_many = len(rendered.prompts) > 1
        if is_many:  # Each by itself may have room where all of them have not.
            num_tokens = sum(len(prompt.token_ids) for prompt in rendered.prompts)
            serving.engine.check_room(caller.terms, rendered.num_answers, num_tokens)
        began = monotonic()
        for index, prompt in enumerate(rendered.prompts):
            streams.append(
                _start(serving, caller, rendered, prompt, f"{request_id}-{index}", has_room=is_many)
            )
            if monotonic() - began > LONGEST_TURN_S:
                await asyncio.sleep(0)
                began = monotonic()
    except OctavoError as error:
        await close_all(streams)  # Those that were admitted count until they are closed.
        if serving.metrics is not None:
            serving.metrics.rejected(error.code.value.code)
        raise
    return Submission(serving, rendered, streams)


def _start(
    serving: Serving, caller: Caller, rendered: Rendered, prompt: Prompt, request_id: str, *, has_room: bool
) -> AsyncIterator[RequestOutput]:
    salt, terms = caller.salt(rendered.cache_salt), caller.terms
    beams = rendered.beams_for(prompt)
    if beams is not None:
        return serving.engine.beam_search(
            prompt.token_ids,
            beams,
            request_id=request_id,
            priority=rendered.priority,
            cache_salt=salt,
            terms=terms,
            has_room=has_room,
        )
    return serving.engine.generate(
        prompt.token_ids if prompt.vectors is None else prompt.vectors,
        rendered.params_for(prompt),
        request_id=request_id,
        priority=rendered.priority,
        cache_salt=salt,
        pins=rendered.pins,
        terms=terms,
        has_room=has_room,
    )
