"""Sample: one answer growing from deltas; ids become text, stop strings are found and never leak."""

from __future__ import annotations

from octavo.engine.outputs import Logprob, LogprobsOnePosition
from octavo.messages.params import SamplingParams
from octavo.messages.result import FinishReason, RequestDelta, TokenLogprobs
from octavo.tokens.detokenizer import Detokenizer
from octavo.tokens.stop_strings import StopStrings
from octavo.tokens.tokenizer import Tokenizer


class Sample:
    """One of the n answers to a request. `new_*` attributes hold what was not yet handed out."""

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, index: int, prompt_token_ids: list[int]
    ) -> None:
        self.index = index
        self.token_ids: list[int] = []
        self.text = ""
        self.logprobs: list[LogprobsOnePosition] | None = None if params.logprobs is None else []
        self.cumulative_logprob: float | None = None if params.logprobs is None else 0.0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._tokenizer = tokenizer
        self._params = params
        self._detokenizer = (
            Detokenizer(
                tokenizer,
                prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
            if params.detokenize
            else None
        )
        stops = params.stop_strings
        self._stops = StopStrings(stops, params.include_stop_str_in_output) if stops else None

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def add(self, delta: RequestDelta) -> bool:
        """Take what the core reported. Returns True if a stop string ended the sample before the core did."""
        for position, token_id in enumerate(delta.token_ids):
            is_last = position == len(delta.token_ids) - 1
            self._add_token(token_id, delta.logprobs[position] if delta.logprobs else None)
            hide = is_last and self._hides_stop_token(delta)
            if not hide and self._add_text([token_id]):
                return delta.finish_reason is None
        if delta.finish_reason is not None:
            self._finish(delta)
        return False

    def _add_token(self, token_id: int, logprobs: TokenLogprobs | None) -> None:
        self.token_ids.append(token_id)
        if logprobs is not None and self.logprobs is not None:
            self.logprobs.append(logprobs_at(self._tokenizer, logprobs))
            self.cumulative_logprob = (self.cumulative_logprob or 0.0) + logprobs.logprobs[0]

    def _add_text(self, token_ids: list[int]) -> bool:
        """Append text of `token_ids`; True when it completed a stop string."""
        if self._detokenizer is None:
            return False
        return self._show(self._detokenizer.add(token_ids))

    def _show(self, text: str) -> bool:
        # Stop strings count only from min_tokens on, like stop tokens do.
        if self._stops is None or len(self.token_ids) <= self._params.min_tokens:
            self.text += text
            return False
        shown, hit = self._stops.add(text)
        self.text += shown
        if hit is None:
            return False
        self.finish_reason, self.stop_reason = FinishReason.STOP.value, hit
        return True

    def _hides_stop_token(self, delta: RequestDelta) -> bool:
        """A token that ended the answer is not part of its text, unless the caller wants it there."""
        return delta.finish_reason is FinishReason.STOP and not self._params.include_stop_str_in_output

    def _finish(self, delta: RequestDelta) -> None:
        assert delta.finish_reason is not None, "only called with the last delta"
        if self._detokenizer is not None and self._show(self._detokenizer.flush()):
            return
        if self._stops is not None:
            self.text += self._stops.flush()
        self.finish_reason = delta.finish_reason.value
        self.stop_reason = delta.stop_token_id


def logprobs_at(tokenizer: Tokenizer, logprobs: TokenLogprobs) -> LogprobsOnePosition:
    """The sampled (or prompt) token with its rank first, then the best ones ranked 1, 2, ..."""
    token_ids, values = logprobs.token_ids, logprobs.logprobs
    position = {token_ids[0]: Logprob(values[0], logprobs.rank, tokenizer.token_text(token_ids[0]))}
    for rank, (token_id, value) in enumerate(zip(token_ids[1:], values[1:], strict=True), start=1):
        if token_id not in position:
            position[token_id] = Logprob(value, rank, tokenizer.token_text(token_id))
    return position
