"""Purpose: what a worker makes of hidden states. It writes, or it answers with numbers.

R rows whose last token a step computes, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from octavo.grammar.matchers import Matchers
from octavo.grammar.vocabulary import Words
from octavo.models.contract import Backbone, CausalLM
from octavo.models.pooled.model import PooledModel
from octavo.worker.extras.contract import Extra
from octavo.worker.extras.grammar_masks import GrammarMasks
from octavo.worker.extras.pooler import Pooler
from octavo.worker.extras.prompt_logprobs import PromptLogprobs
from octavo.worker.extras.prompt_vectors import PromptVectorRows
from octavo.worker.extras.second_texts import SecondTexts
from octavo.worker.rows import TokenRows
from octavo.worker.sampling.placeholders import Placeholders, RowSampler
from octavo.worker.sampling.sampler import Sampler


class Purpose(Protocol):
    """What the runner does behind the model's layers."""

    num_logits: int
    """Columns of what `logits` makes; 0: it makes none."""

    def logits(self, hidden_RE: torch.Tensor) -> torch.Tensor:
        """[R, V], for the sampler."""

    def make(self, rows: TokenRows, num_rows: int) -> tuple[RowSampler, list[Extra]]:
        """Who chooses tokens, and the extras in their order."""


class Writing:
    """A token for each row."""

    def __init__(self, model: CausalLM, words: Callable[[], Words], *, is_overlapping: bool) -> None:
        self._model = model
        self._words = words
        self._is_overlapping = is_overlapping
        self.num_logits = model.vocab_size

    def logits(self, hidden_RE: torch.Tensor) -> torch.Tensor:
        return self._model.logits(hidden_RE)

    def make(self, rows: TokenRows, num_rows: int) -> tuple[RowSampler, list[Extra]]:
        vocab_size = self._model.vocab_size
        sampler = Sampler(num_rows=num_rows, vocab_size=vocab_size, device=rows.device)
        masks = GrammarMasks(
            Matchers(self._words, vocab_size),
            sampler.step_masks,
            rows,
            vocab_size=vocab_size,
            is_overlapping=self._is_overlapping,
        )
        return sampler, [PromptVectorRows(), PromptLogprobs(rows, self._model.logits), masks]


class Answering:
    """Numbers for each row; its token is a placeholder that nobody reads."""

    num_logits = 0

    def __init__(self, model: PooledModel) -> None:
        self._model = model

    def logits(self, hidden_RE: torch.Tensor) -> torch.Tensor:
        return hidden_RE

    def make(self, rows: TokenRows, num_rows: int) -> tuple[RowSampler, list[Extra]]:  # noqa: ARG002
        extras: list[Extra] = [Pooler(self._model.facts, self._model.answer, rows.device)]
        if self._model.embed_second is not None:
            extras.append(SecondTexts(rows, self._model.embed_second))
        return Placeholders(rows.device), extras


def purpose_of(model: Backbone, words: Callable[[], Words], *, is_overlapping: bool) -> Purpose:
    if isinstance(model, PooledModel):
        return Answering(model)
    return Writing(model, words, is_overlapping=is_overlapping)  # type: ignore[arg-type]
