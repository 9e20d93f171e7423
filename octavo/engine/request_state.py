"""RequestState: one caller's request, its n samples, and the outputs it is owed."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.engine.outputs import CompletionOutput, LogprobsOnePosition, RequestMetrics, RequestOutput
from octavo.engine.prompt_positions import PromptPositions
from octavo.engine.sample import Sample
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.request import EngineRequest
from octavo.messages.result import RequestDelta
from octavo.tokens.stop_strings import StopAutomaton
from octavo.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PreparedRequest:
    """A validated request: what the core gets (one per sample) and what the caller said."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    """Placeholders if the prompt was given as vectors."""
    params: SamplingParams
    samples: list[EngineRequest]
    stops: StopAutomaton | None
    """Of the stop strings in `params`."""

    @property
    def known_token_ids(self) -> list[int]:
        """Those of the prompt, as far as it is tokens."""
        return [] if self.samples[0].prompt_vectors is not None else self.prompt_token_ids

    @property
    def vector_bytes(self) -> int:
        """What its prompts of vectors take, a copy for each sample."""
        return sum(len(each.prompt_vectors.data) for each in self.samples if each.prompt_vectors is not None)

    def open(self, tokenizer: Tokenizer) -> RequestState:
        return RequestState(self, tokenizer)


class RequestState:
    """Collects deltas of all samples and makes RequestOutputs of the kind the caller wants."""

    __slots__ = (
        "_gave_prompt_logprobs",
        "_kind",
        "_num_open",
        "_waits_for_prompt",
        "error",
        "error_code",
        "metrics",
        "num_cached_tokens",
        "prepared",
        "prompt_logprobs",
        "samples",
        "tokenizer",
    )

    def __init__(self, prepared: PreparedRequest, tokenizer: Tokenizer) -> None:
        params, prompt = prepared.params, prepared.known_token_ids
        self.prepared = prepared
        self.tokenizer = tokenizer
        self.samples = [
            Sample(tokenizer, params, i, prompt, prepared.stops) for i in range(len(prepared.samples))
        ]
        self.metrics = RequestMetrics(
            arrival_time=prepared.samples[0].arrival_time,
            num_prompt_tokens=len(prepared.prompt_token_ids),
        )
        self.prompt_logprobs: PromptPositions | None = None
        self.num_cached_tokens = 0
        self.error: str | None = None
        self.error_code: str | None = None
        self._kind = params.output_kind
        self._num_open = len(self.samples)
        self._gave_prompt_logprobs = False
        self._waits_for_prompt = params.prompt_logprobs is not None

    @property
    def is_finished(self) -> bool:
        return not self._num_open

    @property
    def has_output(self) -> bool:
        """take_output() has something, or the request failed. Asked per token: cheap."""
        return self._kind is not RequestOutputKind.FINAL_ONLY or not self._num_open or self.error is not None

    def has_ended(self, index: int) -> bool:
        return self.samples[index].finish_reason is not None

    def output_token_ids(self, index: int) -> list[int]:
        return self.samples[index].token_ids

    def add(self, index: int, delta: RequestDelta, now: float) -> bool:
        """Take a delta of sample `index`. Returns True if the core must be told to abort that sample."""
        sample = self.samples[index]
        if sample.finish_reason is not None:
            return False  # it ended by a stop string; the core had not heard yet
        num_before = len(sample.token_ids)
        must_abort = sample.add(delta)
        if sample.finish_reason is not None:
            self._num_open -= 1
        self._measure(delta, len(sample.token_ids) - num_before, now)
        if delta.timing is not None or delta.error is not None:
            self._note_rare(delta)
        return must_abort

    def _measure(self, delta: RequestDelta, num_new: int, now: float) -> None:
        metrics = self.metrics
        if delta.num_preemptions > metrics.num_preemptions:
            metrics.num_preemptions = delta.num_preemptions
        if num_new:
            metrics.num_output_tokens += num_new
            metrics.first_token_time = metrics.first_token_time or now
            metrics.last_token_time = now
        if not self._num_open:
            metrics.finished_time = now

    def _note_rare(self, delta: RequestDelta) -> None:
        """What comes with the first and the last delta only."""
        if delta.timing is not None and self.metrics.first_scheduled_time is None:
            self.metrics.first_scheduled_time = delta.timing.first_scheduled
            # Later samples find in the cache what this one has computed.
            self.num_cached_tokens = delta.num_cached_tokens
        if self.error is None:
            self.error, self.error_code = delta.error, delta.error_code
        if delta.prompt_logprobs is not None and self.prompt_logprobs is None:
            self.prompt_logprobs = PromptPositions(self.tokenizer, delta.prompt_logprobs)

    def _hand_out(self, wants_delta: bool) -> list[CompletionOutput]:
        """Of every sample with news; or, once one has any, of all."""
        samples = self.samples
        if len(samples) == 1:  # Nearly always.
            return [samples[0].hand_out(wants_delta)] if samples[0].has_news else []
        changed = [sample for sample in samples if sample.has_news]
        if changed and not wants_delta:
            changed = samples
        return [sample.hand_out(wants_delta) for sample in changed]

    def catch_up(self) -> bool:
        return self.prompt_logprobs is not None and self.prompt_logprobs.make_more()

    def take_output(self) -> RequestOutput | None:
        """What the caller is owed now, or None: nothing new, or the kind wants only the end."""
        is_finished = not self._num_open
        if self._kind is RequestOutputKind.FINAL_ONLY and not is_finished:
            return None
        if self._waits_for_prompt and self.prompt_logprobs is None and not is_finished:
            return None  # The first sample brings them, and another one may be faster.
        wants_delta = self._kind is RequestOutputKind.DELTA
        outputs = self._hand_out(wants_delta)
        if not outputs:
            return None
        prepared = self.prepared
        return RequestOutput(
            request_id=prepared.request_id,
            prompt=prepared.prompt,
            prompt_token_ids=prepared.prompt_token_ids,
            prompt_logprobs=self._prompt_logprobs_due(wants_delta),
            outputs=outputs,
            finished=is_finished,
            metrics=self.metrics,
            num_cached_tokens=self.num_cached_tokens,
        )

    def _prompt_logprobs_due(self, wants_delta: bool) -> list[LogprobsOnePosition | None] | None:
        """With the first output only, where outputs are what is new."""
        if self.prompt_logprobs is None or (wants_delta and self._gave_prompt_logprobs):
            return None
        self._gave_prompt_logprobs = True
        return self.prompt_logprobs.all()
