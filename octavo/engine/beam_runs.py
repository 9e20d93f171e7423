"""What LLM and AsyncLLM share of beam search: opening one, its steps as requests, its answers as outputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from octavo.base.clock import monotonic
from octavo.engine.beam_search import Beam, BeamSearch
from octavo.engine.outputs import (
    BeamSearchOutput,
    BeamSearchSequence,
    CompletionOutput,
    LogprobsOnePosition,
    RequestMetrics,
    RequestOutput,
)
from octavo.engine.prepare import RequestPreparer
from octavo.engine.request_state import PreparedRequest
from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.request import PLAIN_TERMS, Terms
from octavo.messages.result import FinishReason
from octavo.tokens.tokenizer import Tokenizer

RunsRequest = Callable[[PreparedRequest], AsyncGenerator[RequestOutput, None]]


def open_search(
    preparer: RequestPreparer,
    prompt: str | list[int],
    params: BeamSearchParams,
    cache_salt: str | None = None,
) -> BeamSearch:
    """Check everything. Raises RequestError naming the parameter."""
    params.check()
    whole = preparer.prepare(prompt, SamplingParams(max_tokens=params.max_tokens), cache_salt=cache_salt)
    sample = whole.samples[0]
    return BeamSearch(whole.prompt_token_ids, params, sample.max_tokens, sample.eos_token_ids)


class BeamSteps:
    """Makes the requests of steps: one token for each open beam, whose prefix is in the cache already."""

    def __init__(
        self,
        preparer: RequestPreparer,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        terms: Terms = PLAIN_TERMS,
    ) -> None:
        self._preparer = preparer
        self._request_id = request_id
        self._priority = priority
        self._cache_salt = cache_salt
        self._terms = terms

    def requests(self, search: BeamSearch) -> list[PreparedRequest]:
        params = search.step_params(self._preparer.vocab_size)
        params.output_kind = RequestOutputKind.FINAL_ONLY
        return [
            self._preparer.prepare(
                token_ids,
                params,
                request_id=self._request_id,
                priority=self._priority,
                cache_salt=self._cache_salt,
                terms=self._terms,
                max_logprobs=params.logprobs,
            )
            for token_ids in search.prompts()
        ]


def candidates(output: RequestOutput) -> LogprobsOnePosition:
    """What a step's request brought."""
    logprobs = output.outputs[0].logprobs
    assert logprobs, "every step's request asks for log-probabilities"
    return logprobs[0]


async def stream_search(
    search: BeamSearch, steps: BeamSteps, run: RunsRequest, tokenizer: Tokenizer, request_id: str
) -> AsyncGenerator[RequestOutput, None]:
    """One output, at the end. Closing or cancelling this ends all requests of the step that runs."""
    metrics = RequestMetrics(arrival_time=monotonic(), num_prompt_tokens=len(search.prompt_token_ids))
    num_cached_tokens: int | None = None
    while not search.is_done:
        outputs = await _run_all([run(request) for request in steps.requests(search)])
        if num_cached_tokens is None:
            num_cached_tokens = outputs[0].num_cached_tokens
        first = outputs[0].metrics
        if first is not None and metrics.first_scheduled_time is None:
            metrics.first_scheduled_time = first.first_scheduled_time
        if any(output.outputs[0].finish_reason == FinishReason.ABORT for output in outputs):
            search.stop()
            break
        metrics.last_token_time = monotonic()
        metrics.first_token_time = metrics.first_token_time or metrics.last_token_time
        search.take([candidates(output) for output in outputs])
    best = search.best()[: search.params.n]
    parts = [_completion(search, index, beam, tokenizer) for index, (_, beam) in enumerate(best)]
    metrics.finished_time = monotonic()
    metrics.num_output_tokens = sum(len(part.token_ids) for part in parts)
    yield RequestOutput(
        request_id=request_id,
        prompt=None,
        prompt_token_ids=search.prompt_token_ids,
        outputs=parts,
        finished=True,
        metrics=metrics,
        num_cached_tokens=num_cached_tokens or 0,
    )


async def _run_all(streams: Sequence[AsyncGenerator[RequestOutput, None]]) -> list[RequestOutput]:
    """The last output of each. If one fails, or the caller goes, none is left behind."""
    tasks = [asyncio.create_task(_last(stream)) for stream in streams]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _last(stream: AsyncGenerator[RequestOutput, None]) -> RequestOutput:
    last: RequestOutput | None = None
    try:
        async for output in stream:
            last = output
    finally:
        await stream.aclose()
    assert last is not None, "a request that ends says so"
    return last


def whole_output(search: BeamSearch, tokenizer: Tokenizer) -> BeamSearchOutput:
    """vLLM's shape: sequences with their prompts."""
    return BeamSearchOutput(
        sequences=[
            BeamSearchSequence(
                tokens=search.prompt_token_ids + beam.token_ids,
                logprobs=beam.logprobs,
                cum_logprob=beam.cum_logprob,
                score=score,
                text=_text(search.params, beam, tokenizer),
                finish_reason=_finish_reason(search, beam),
            )
            for score, beam in search.best()
        ]
    )


def _completion(search: BeamSearch, index: int, beam: Beam, tokenizer: Tokenizer) -> CompletionOutput:
    shown = search.params.logprobs
    return CompletionOutput(
        index=index,
        text=_text(search.params, beam, tokenizer),
        token_ids=beam.token_ids,
        cumulative_logprob=beam.cum_logprob,
        logprobs=None
        if shown is None
        else [
            _shown(position, token_id, shown)
            for token_id, position in zip(beam.token_ids, beam.logprobs, strict=True)
        ],
        finish_reason=_finish_reason(search, beam).value,
    )


def _shown(position: LogprobsOnePosition, token_id: int, count: int) -> LogprobsOnePosition:
    """The chosen token first, then the best ones."""
    return {token_id: position[token_id], **dict(list(position.items())[:count])}


def _finish_reason(search: BeamSearch, beam: Beam) -> FinishReason:
    if search.is_stopped:
        return FinishReason.ABORT
    return FinishReason.STOP if beam.is_ended else FinishReason.LENGTH


def _text(params: BeamSearchParams, beam: Beam, tokenizer: Tokenizer) -> str:
    if not tokenizer.has_text:
        return ""
    if not beam.is_ended:
        return tokenizer.decode(beam.token_ids, params.skip_special_tokens)
    text = tokenizer.decode(beam.token_ids[:-1], params.skip_special_tokens)
    return text + (tokenizer.token_text(beam.token_ids[-1]) if params.include_stop_str_in_output else "")
