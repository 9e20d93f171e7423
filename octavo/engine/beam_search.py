"""BeamSearch: which answers to follow, and when to end. Knows scores and tokens; others run the model.

The rules are those of transformers' generate(num_beams=...): of all continuations of the open beams the
best 2 * beam_width are looked at (more where several tokens end a text); those that are complete and
among the first beam_width are kept if they score well enough; the best others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.engine.outputs import LogprobsOnePosition
from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Beam:
    """One answer as far as it goes."""

    token_ids: list[int]
    logprobs: list[LogprobsOnePosition]
    """The candidates at each position, best first."""
    cum_logprob: float
    is_ended: bool = False
    """By the end of text, not by its length."""


class BeamSearch:
    """One prompt. Ask for `prompts`, run each for one token with `step_params`, `take` what came; again."""

    def __init__(
        self,
        prompt_token_ids: list[int],
        params: BeamSearchParams,
        max_tokens: int,
        eos_token_ids: Sequence[int],
    ) -> None:
        self.prompt_token_ids = prompt_token_ids
        self.params = params
        self._max_tokens = max_tokens
        self._ends = frozenset(() if params.ignore_eos else eos_token_ids)
        self._num_candidates = max(2, 1 + len(self._ends)) * params.beam_width
        self._open = [Beam(token_ids=[], logprobs=[], cum_logprob=0.0)]
        self._complete: list[tuple[float, Beam]] = []
        """With scores, best first; at most beam_width."""
        self._length = 0
        self._is_done = False
        self.is_stopped = False
        """Somebody wants it to end as it stands."""

    @property
    def is_done(self) -> bool:
        return self._is_done or self.is_stopped

    def stop(self) -> None:
        self.is_stopped = True

    def prompts(self) -> list[list[int]]:
        """What to continue by one token each: the prompt with each open beam behind it."""
        return [self.prompt_token_ids + beam.token_ids for beam in self._open]

    def step_params(self, vocab_size: int) -> SamplingParams:
        """How to run a step. The token is chosen here: it only has to bring its rivals."""
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprobs=min(max(self._num_candidates, self.params.logprobs or 0), vocab_size),
            detokenize=False,
            ignore_eos=True,
        )

    def take(self, positions: Sequence[LogprobsOnePosition]) -> None:
        """The candidates that follow each open beam, parallel to `prompts`."""
        assert len(positions) == len(self._open), "one position for each open beam"
        self._length += 1
        is_last = self._length == self._max_tokens
        ranked = [
            (beam.cum_logprob + entry.logprob, number, token)
            for number, (beam, position) in enumerate(zip(self._open, positions, strict=True))
            for token, entry in position.items()
        ]
        ranked.sort(key=lambda candidate: -candidate[0])
        following: list[Beam] = []
        for place, (cum_logprob, number, token) in enumerate(ranked[: self._num_candidates]):
            before = self._open[number]
            beam = Beam(
                token_ids=[*before.token_ids, token],
                logprobs=[*before.logprobs, positions[number]],
                cum_logprob=cum_logprob,
                is_ended=token in self._ends,
            )
            if not (is_last or beam.is_ended):
                following.append(beam)
            elif place < self.params.beam_width:
                self._complete.append((self._score(cum_logprob, self._length), beam))
        self._complete.sort(key=lambda scored: -scored[0])
        del self._complete[self.params.beam_width :]
        self._open = following[: self.params.beam_width]
        self._is_done = is_last or not self._can_improve()

    def best(self) -> list[tuple[float, Beam]]:
        """Answers with their scores, best first: the complete ones; if there is none yet, the open ones."""
        if self._complete:
            return self._complete
        scored = [(self._score(beam.cum_logprob, max(1, self._length)), beam) for beam in self._open]
        return sorted(scored, key=lambda pair: -pair[0])

    def _can_improve(self) -> bool:
        if not self._open:
            return False
        if len(self._complete) < self.params.beam_width:
            return True
        if self.params.early_stopping is True:
            return False
        reaches_out = self.params.early_stopping == "never" and self.params.length_penalty > 0.0
        length = self._max_tokens if reaches_out else self._length
        return self._score(self._open[0].cum_logprob, length) > self._complete[-1][0]

    def _score(self, cum_logprob: float, length: int) -> float:
        weight: float = float(length) ** self.params.length_penalty
        return cum_logprob / weight
