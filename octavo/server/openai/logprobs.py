"""Log-probabilities in the shapes of the OpenAI API: the legacy lists, chat's entries, prompt positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from octavo.engine.outputs import Logprob, LogprobsOnePosition
from octavo.server.engine_port import TokenizerPort
from octavo.server.openai.schema.chat import ChatLogprobs, TokenLogprob, TopLogprob
from octavo.server.openai.schema.completion import CompletionLogprobs
from octavo.server.openai.schema.generation import PromptLogprob, PromptLogprobs

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


LOGPROB_BYTES = 16
"""What showing one counts as, against LONG_BODY_BYTES: 2 us and more."""


def weight_of(positions: Sequence[LogprobsOnePosition | None] | None) -> int:
    """What showing all of them counts as, for `off_loop_if_long`."""
    return len(positions) * len(positions[-1] or ()) * LOGPROB_BYTES if positions else 0


class LogprobFormat:
    """How tokens are shown: as text, or as `token_id:N` if the caller wants ids."""

    def __init__(self, tokenizer: TokenizerPort, as_token_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_token_ids = as_token_ids

    def legacy(
        self,
        token_ids: Sequence[int],
        positions: Sequence[LogprobsOnePosition | None],
        offsets: Sequence[int],
    ) -> CompletionLogprobs:
        """Parallel lists for the completions API; `offsets` is where the tokens begin in the text."""
        lists = CompletionLogprobs([], [], [], [*offsets])
        for token_id, position in zip(token_ids, positions, strict=True):
            logprob = position.get(token_id) if position else None
            lists.tokens.append(self._text(token_id, logprob))
            lists.token_logprobs.append(None if logprob is None else finite(logprob.logprob))
            lists.top_logprobs.append(self._best_by_text(position) if position else None)
        return lists

    def chat(
        self, token_ids: Sequence[int], positions: Sequence[LogprobsOnePosition], top: int
    ) -> ChatLogprobs:
        """One entry per token, with the `top` best ones beside it."""
        return ChatLogprobs(
            [self._entry(token, position, top) for token, position in zip(token_ids, positions, strict=True)]
        )

    def prompt(self, positions: Iterable[LogprobsOnePosition | None]) -> PromptLogprobs:
        """vLLM's shape: per position, token id -> logprob, rank and text."""
        return [
            None
            if position is None
            else {
                token_id: PromptLogprob(finite(entry.logprob), entry.rank, self._text(token_id, entry))
                for token_id, entry in position.items()
            }
            for position in positions
        ]

    def _entry(self, token_id: int, position: LogprobsOnePosition, top: int) -> TokenLogprob:
        # The sampled token comes first in `position`; it belongs to the best ones only by its rank.
        best = sorted(position.items(), key=lambda item: -item[1].logprob)[:top]
        chosen = position[token_id]
        return TokenLogprob(
            self._text(token_id, chosen),
            finite(chosen.logprob),
            list(self._tokenizer.token_bytes(token_id)),
            [
                TopLogprob(
                    self._text(other, entry), finite(entry.logprob), list(self._tokenizer.token_bytes(other))
                )
                for other, entry in best
            ],
        )

    def _best_by_text(self, position: LogprobsOnePosition) -> dict[str, float]:
        """By text, as the API wants it; of tokens with equal text the likelier one counts."""
        best: dict[str, float] = {}
        for token_id, entry in position.items():
            text = self._text(token_id, entry)
            best[text] = max(finite(entry.logprob), best.get(text, LOWEST))
        return best

    def _text(self, token_id: int, logprob: Logprob | None) -> str:
        if self._as_token_ids:
            return f"token_id:{token_id}"
        if logprob is not None and logprob.decoded_token is not None:
            return logprob.decoded_token
        return self._tokenizer.token_text(token_id)


def finite(logprob: float) -> float:
    return max(logprob, LOWEST)
