"""Sample: one answer growing from deltas; ids become text, stop strings are found and never leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octavo.engine.outputs import CompletionOutput, Logprob, LogprobsOnePosition
from octavo.messages.params import SamplingParams
from octavo.messages.result import FinishReason, RequestDelta, TokenLogprobs
from octavo.messages.samplers import REPETITION_DETECTED
from octavo.tokens.detokenizer import Detokenizer
from octavo.tokens.stop_strings import StopAutomaton, StopStrings
from octavo.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from octavo.engine.repetition import Repetition

TEXT_BATCH = 16
"""Without stop strings text is made of so many tokens at a time, or when somebody wants to see it."""


class Sample:
    """One of the n answers to a request. Hot path: `add` runs per token."""

    __slots__ = (
        "_detokenizer",
        "_is_watched",
        "_num_decoded",
        "_num_handed",
        "_params",
        "_parts",
        "_repetition",
        "_stops",
        "_tokenizer",
        "_was_finished",
        "cumulative_logprob",
        "finish_reason",
        "index",
        "logprobs",
        "stop_reason",
        "token_ids",
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        params: SamplingParams,
        index: int,
        prompt_token_ids: list[int],
        stops: StopAutomaton | None = None,
    ) -> None:
        """stops: those of `params`."""
        self.index = index
        self.token_ids: list[int] = []
        has_logprobs = params.logprobs is not None or bool(params.logprob_token_ids)
        self.logprobs: list[LogprobsOnePosition] | None = [] if has_logprobs else None
        self.cumulative_logprob: float | None = 0.0 if has_logprobs else None
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._tokenizer = tokenizer
        self._params = params
        self._detokenizer = (
            Detokenizer(
                tokenizer,
                prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                shown_special_token_ids=params.shown_special_token_ids,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
            if params.detokenize and tokenizer.has_text
            else None
        )
        include = params.include_stop_str_in_output
        self._stops = None if stops is None else StopStrings(stops, include)
        self._repetition = _repetition_of(params)
        self._is_watched = self._stops is not None or self._repetition is not None
        self._parts: list[str] = []
        """Text that nobody has taken yet."""
        self._num_decoded = 0
        self._num_handed = 0
        self._was_finished = False

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def text(self) -> str:
        """All of it, or what was not taken yet."""
        if self.finish_reason is None and self._stops is None:
            self._decode(len(self.token_ids))
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def has_news(self) -> bool:
        """Something happened since the last hand-out."""
        is_over = self.finish_reason is not None
        return len(self.token_ids) > self._num_handed or (is_over and not self._was_finished)

    def add(self, delta: RequestDelta) -> bool:
        """Take what the core reported. Returns True if the sample ended here before it did in the core."""
        if self._is_watched:
            return self._add_watching(delta)
        if delta.logprobs is not None:
            self._add_logprobs(delta.logprobs)
        token_ids = self.token_ids
        token_ids += delta.token_ids
        if delta.finish_reason is not None:
            self._finish(delta)
        elif len(token_ids) - self._num_decoded >= TEXT_BATCH:
            self._decode(len(token_ids))
        return False

    def hand_out(self, only_new: bool) -> CompletionOutput:
        """The answer as it stands, or what is new of it since the last call."""
        text, token_ids, logprobs = self.text, self.token_ids, self.logprobs
        if only_new:
            self._parts = []
            token_ids = token_ids[self._num_handed :]
            logprobs = None if logprobs is None else logprobs[self._num_handed :]
        else:
            token_ids = token_ids.copy()
            logprobs = None if logprobs is None else logprobs.copy()
        self._num_handed = len(self.token_ids)
        self._was_finished = self.finish_reason is not None
        return CompletionOutput(
            index=self.index,
            text=text,
            token_ids=token_ids,
            cumulative_logprob=self.cumulative_logprob,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def _add_watching(self, delta: RequestDelta) -> bool:
        """Token by token: nothing after a stop string or a repetition counts."""
        last = len(delta.token_ids) - 1
        for position, token_id in enumerate(delta.token_ids):
            self.token_ids.append(token_id)
            if delta.logprobs is not None:
                self._add_logprobs(delta.logprobs[position : position + 1])
            if position == last and self._hides_stop_token(delta):
                break
            if self._decode(len(self.token_ids)) or self._repeats(token_id):
                return delta.finish_reason is None
        if delta.finish_reason is not None:
            self._finish(delta)
        return False

    def _add_logprobs(self, logprobs: list[TokenLogprobs]) -> None:
        if self.logprobs is None:
            return
        for position in logprobs:
            self.logprobs.append(logprobs_at(self._tokenizer, position, not self._params.logprob_token_ids))
            self.cumulative_logprob = (self.cumulative_logprob or 0.0) + position.logprobs[0]

    def _decode(self, end: int) -> bool:
        """Make text of the tokens up to `end`; True when it completed a stop string."""
        new = self.token_ids[self._num_decoded : end]
        self._num_decoded = end
        return bool(new) and self._detokenizer is not None and self._show(self._detokenizer.add(new))

    def _show(self, text: str) -> bool:
        # Stop strings count only from min_tokens on, like stop tokens do.
        if self._stops is None or len(self.token_ids) <= self._params.min_tokens:
            self._parts.append(text)
            return False
        shown, hit = self._stops.add(text)
        self._parts.append(shown)
        if hit is None:
            return False
        self.finish_reason, self.stop_reason = FinishReason.STOP.value, hit
        return True

    def _repeats(self, token_id: int) -> bool:
        """Whether the sample ends because it goes round in circles."""
        if self._repetition is None or not self._repetition.add(token_id):
            return False
        if len(self.token_ids) < self._params.min_tokens:
            return False
        if self._detokenizer is not None and self._show(self._detokenizer.flush()):
            return True
        if self._stops is not None:
            self._parts.append(self._stops.flush())
        self.finish_reason, self.stop_reason = FinishReason.STOP.value, REPETITION_DETECTED
        return True

    def _hides_stop_token(self, delta: RequestDelta) -> bool:
        """A token that ended the answer is not part of its text, unless the caller wants it there."""
        return delta.finish_reason is FinishReason.STOP and not self._params.include_stop_str_in_output

    def _finish(self, delta: RequestDelta) -> None:
        assert delta.finish_reason is not None, "only called with the last delta"
        is_last_hidden = bool(delta.token_ids) and self._hides_stop_token(delta)
        self._decode(len(self.token_ids) - int(is_last_hidden))
        if self._detokenizer is not None and self._show(self._detokenizer.flush()):
            return
        if self._stops is not None:
            self._parts.append(self._stops.flush())
        self.finish_reason = delta.finish_reason.value
        self.stop_reason = delta.stop_token_id


def logprobs_at(tokenizer: Tokenizer, logprobs: TokenLogprobs, is_ranked: bool = True) -> LogprobsOnePosition:
    """The sampled (or prompt) token with its rank first, then the best ones ranked 1, 2, ...

    Not ranked: the others are those that the caller named, in that order.
    """
    token_ids, values = logprobs.token_ids, logprobs.logprobs
    position = {token_ids[0]: Logprob(values[0], logprobs.rank, tokenizer.token_text(token_ids[0]))}
    for rank, (token_id, value) in enumerate(zip(token_ids[1:], values[1:], strict=True), start=1):
        if token_id not in position:
            place = rank if is_ranked else None
            position[token_id] = Logprob(value, place, tokenizer.token_text(token_id))
    return position


def _repetition_of(params: SamplingParams) -> Repetition | None:
    detection = params.repetition_detection
    if detection is None or not detection.is_on:
        return None
    from octavo.engine.repetition import Repetition  # It takes NumPy: see CallersWords.

    return Repetition(detection)
