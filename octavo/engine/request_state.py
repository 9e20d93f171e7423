"""RequestState: one caller's request, its n samples, and the outputs it is owed."""

from __future__ import annotations

from dataclasses import dataclass, field

from octavo.engine.outputs import (
    CompletionOutput,
    LogprobsOnePosition,
    RequestMetrics,
    RequestOutput,
)
from octavo.engine.sample import Sample, logprobs_at
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.request import EngineRequest
from octavo.messages.result import RequestDelta
from octavo.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PreparedRequest:
    """A validated request: what the core gets (one per sample) and what the caller said."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    samples: list[EngineRequest]


@dataclass(slots=True)
class _Handed:
    """How much of a sample the caller already has."""

    text: int = 0
    tokens: int = 0
    is_finished: bool = False


@dataclass(slots=True)
class RequestState:
    """Collects deltas of all samples and makes RequestOutputs of the kind the caller wants."""

    prepared: PreparedRequest
    tokenizer: Tokenizer
    samples: list[Sample] = field(init=False)
    metrics: RequestMetrics = field(init=False)
    prompt_logprobs: list[LogprobsOnePosition | None] | None = None
    num_cached_tokens: int = 0
    error: str | None = None
    _handed: list[_Handed] = field(init=False)
    _gave_prompt_logprobs: bool = False

    def __post_init__(self) -> None:
        params, prompt = self.prepared.params, self.prepared.prompt_token_ids
        count = len(self.prepared.samples)
        self.samples = [Sample(self.tokenizer, params, index, prompt) for index in range(count)]
        self._handed = [_Handed() for _ in range(count)]
        self.metrics = RequestMetrics(
            arrival_time=self.prepared.samples[0].arrival_time, num_prompt_tokens=len(prompt)
        )

    @property
    def is_finished(self) -> bool:
        return all(sample.is_finished for sample in self.samples)

    def add(self, index: int, delta: RequestDelta, now: float) -> bool:
        """Take a delta of sample `index`. Returns True if the core must be told to abort that sample."""
        sample = self.samples[index]
        if sample.is_finished:
            return False  # it ended by a stop string; the core had not heard yet
        if delta.error is not None and self.error is None:
            self.error = delta.error
        must_abort = sample.add(delta)
        self._measure(delta, now)
        if delta.prompt_logprobs is not None and self.prompt_logprobs is None:
            rest = [logprobs_at(self.tokenizer, position) for position in delta.prompt_logprobs]
            self.prompt_logprobs = [None, *rest]
        return must_abort

    def _measure(self, delta: RequestDelta, now: float) -> None:
        metrics = self.metrics
        self.num_cached_tokens = max(self.num_cached_tokens, delta.num_cached_tokens)
        metrics.num_preemptions = max(metrics.num_preemptions, delta.num_preemptions)
        if delta.timing is not None and metrics.first_scheduled_time is None:
            metrics.first_scheduled_time = delta.timing.first_scheduled
        if delta.token_ids:
            metrics.num_output_tokens += len(delta.token_ids)
            metrics.first_token_time = metrics.first_token_time or now
            metrics.last_token_time = now
        if self.is_finished:
            metrics.finished_time = now

    def take_output(self) -> RequestOutput | None:
        """What the caller is owed now, or None: nothing new, or the kind wants only the end."""
        kind = self.prepared.params.output_kind
        is_finished = self.is_finished
        if kind is RequestOutputKind.FINAL_ONLY and not is_finished:
            return None
        changed = [s for s, h in zip(self.samples, self._handed, strict=True) if _has_news(s, h)]
        if not changed:
            return None
        wants_delta = kind is RequestOutputKind.DELTA
        shown = changed if wants_delta else self.samples
        outputs = [self._hand_out(sample, wants_delta) for sample in shown]
        prompt_logprobs = self.prompt_logprobs
        if wants_delta:
            prompt_logprobs = None if self._gave_prompt_logprobs else prompt_logprobs
            self._gave_prompt_logprobs = self._gave_prompt_logprobs or prompt_logprobs is not None
        return RequestOutput(
            request_id=self.prepared.request_id,
            prompt=self.prepared.prompt,
            prompt_token_ids=self.prepared.prompt_token_ids,
            prompt_logprobs=prompt_logprobs,
            outputs=outputs,
            finished=is_finished,
            metrics=self.metrics,
            num_cached_tokens=self.num_cached_tokens,
        )

    def _hand_out(self, sample: Sample, wants_delta: bool) -> CompletionOutput:
        handed = self._handed[sample.index]
        text_from, tokens_from = (handed.text, handed.tokens) if wants_delta else (0, 0)
        handed.text, handed.tokens = len(sample.text), len(sample.token_ids)
        handed.is_finished = sample.is_finished
        return CompletionOutput(
            index=sample.index,
            text=sample.text[text_from:],
            token_ids=sample.token_ids[tokens_from:],
            cumulative_logprob=sample.cumulative_logprob,
            logprobs=None if sample.logprobs is None else sample.logprobs[tokens_from:],
            finish_reason=sample.finish_reason,
            stop_reason=sample.stop_reason,
        )


def _has_news(sample: Sample, handed: _Handed) -> bool:
    return len(sample.token_ids) > handed.tokens or sample.is_finished != handed.is_finished
