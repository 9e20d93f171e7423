"""Sampler: one token for each row of a step. `sample` reads as the order of work.

A row's token depends on its logits, settings, history, key and position alone; a row that cannot be
sampled is reported and disturbs no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.messages.result import TokenLogprobs
from octavo.worker.sampling.blocks import best_token
from octavo.worker.sampling.filters import draw_filtered, draw_unfiltered, probabilities
from octavo.worker.sampling.history import History, TokenTable
from octavo.worker.sampling.logprobs import token_logprobs
from octavo.worker.sampling.masks import AllowedTokens, BadWords, LogitBias, MinTokens
from octavo.worker.sampling.penalties import apply_penalties
from octavo.worker.sampling.processors import LogitsProcessors
from octavo.worker.sampling.random import uniforms
from octavo.worker.sampling.rows import SamplingRows

_ENTRIES_AT_ONCE = 1 << 20
"""Logits drawn from at a time: the arrays of one piece stay in the processor's cache."""

_NOT_FINITE = "The model's logits are not finite at this position (NaN, or infinite); no token can be chosen."
_NONE_LEFT = (
    "No token can be chosen: allowed_token_ids, bad_words, min_tokens or a logits processor masked every one."
)
_SPOILT = "logit_bias, a penalty or a logits processor made the logits of this position NaN or infinite."


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What a step chose. Rows in `failed` hold token 0, which means nothing."""

    token_ids: Tensor
    """int64 [S], on the device, parallel to the rows asked for."""
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    """By row, where asked for."""
    failed: dict[int, str] = field(default_factory=dict)
    """By row: why no token could be chosen."""


class Sampler:
    """Holds the sampling state of all rows of one worker. One thread."""

    def __init__(self, *, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._settings = SamplingRows(num_rows=num_rows, vocab_size=vocab_size, device=device)
        self._processors = LogitsProcessors()
        self._bias = LogitBias(device)
        self._allowed = AllowedTokens(device)
        self._bad_words = BadWords(device)
        self._min_tokens = MinTokens(device)

    def add_row(
        self,
        row: int,
        params: SamplingParams,
        random_key: int,
        eos_token_ids: list[int],
        token_ids: list[int],
        num_prompt_tokens: int,
    ) -> None:
        """Take in a request's settings; a preempted request comes again with the same key.

        Penalties and masks read the history from the token table at each step, so nothing of
        `token_ids` is kept here.
        """
        assert 0 < num_prompt_tokens <= len(token_ids), "a row begins with a prompt of at least one token"
        self.remove_row(row)
        self._settings.add(row, params, random_key)
        self._processors.add_row(row, params)
        self._bias.add_row(row, params)
        self._allowed.add_row(row, params)
        self._bad_words.add_row(row, params)
        self._min_tokens.add_row(row, params, eos_token_ids)

    def remove_row(self, row: int) -> None:
        """Forget a row. Idempotent."""
        self._settings.remove(row)
        self._processors.remove_row(row)
        self._bias.tables.drop(row)
        self._allowed.tables.drop(row)
        self._bad_words.remove_row(row)
        self._min_tokens.tables.drop(row)

    @torch.no_grad()
    def sample(self, logits_SV: Tensor, rows: Sequence[int], token_rows: TokenTable) -> Sampled:
        """Choose the next token of each row. The logits are left as they are.

        Waits for the device once where logits are checked, and again where rows use log-probabilities,
        penalties, processors or filters.
        """
        assert logits_SV.shape == (len(rows), self._vocab_size), "logits are [rows, vocabulary]"
        if not rows:
            return Sampled(token_ids=torch.empty(0, dtype=torch.int64, device=self._device))
        best_S, token_S = best_token(logits_SV)
        failed = dict.fromkeys(_unusable(best_S), _NOT_FINITE)
        if failed:
            logits_SV = _blanked(logits_SV, list(failed))
            best_S[list(failed)] = 0.0
        history = History.of(token_rows, rows, self._device)

        chosen_SV = logits_SV
        if self._is_changed(rows):
            chosen_SV = logits_SV.to(torch.float32, copy=True)
            failed = self._change(chosen_SV, rows, history) | failed
            best_S, token_S = best_token(chosen_SV)
            spoilt = [place for place in _unusable(best_S) if place not in failed]
            failed |= {place: _NONE_LEFT if best_S[place] == -torch.inf else _SPOILT for place in spoilt}
            if spoilt:
                chosen_SV = _blanked(chosen_SV, spoilt)
                best_S[spoilt] = 0.0

        self._draw(chosen_SV, best_S, token_S, rows, history)
        if failed:
            token_S[list(failed)] = 0
        return Sampled(
            token_ids=token_S,
            logprobs=self._logprobs(logits_SV, rows, token_S, failed),
            failed={rows[place]: message for place, message in failed.items()},
        )

    def _is_changed(self, rows: Sequence[int]) -> bool:
        """Whether any row chooses from other logits than the model's."""
        return (
            not self._settings.penalised.isdisjoint(rows)
            or self._processors.used_by(rows)
            or self._bias.tables.used_by(rows)
            or self._allowed.tables.used_by(rows)
            or self._bad_words.tables.used_by(rows)
            or self._min_tokens.tables.used_by(rows)
        )

    def _change(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> dict[int, str]:
        """Processors, bias, penalties, then the masks, which so have the last word."""
        failed = self._processors.apply(logits_SV, rows, history)
        self._bias.apply(logits_SV, rows)
        penalised = [place for place, row in enumerate(rows) if row in self._settings.penalised]
        apply_penalties(logits_SV, penalised, history, self._settings)
        self._allowed.apply(logits_SV, rows)
        self._bad_words.apply(logits_SV, rows, history)
        self._min_tokens.apply(logits_SV, rows, history)
        return failed

    def _draw(
        self, logits_SV: Tensor, best_S: Tensor, token_S: Tensor, rows: Sequence[int], history: History
    ) -> None:
        """Replace the greedy tokens of rows that draw."""
        settings = self._settings
        if settings.random.isdisjoint(rows):
            return
        plain = [i for i, row in enumerate(rows) if row in settings.random and row not in settings.filtered]
        filtered = [i for i, row in enumerate(rows) if row in settings.filtered]
        uniform_S = uniforms(history.lengths_S, settings.round_keys(history.rows_S))
        at_once = max(1, _ENTRIES_AT_ONCE // self._vocab_size)
        for places, is_filtered in ((plain, False), (filtered, True)):
            for start in range(0, len(places), at_once):
                part = places[start : start + at_once]
                place_R = torch.tensor(part, device=self._device)
                filters = settings.filters(history.rows_S[place_R])
                p_RV = probabilities(_take(logits_SV, part), best_S[place_R], filters.temperature_R)
                if is_filtered:
                    token_S[place_R] = draw_filtered(p_RV, filters, uniform_S[place_R])
                else:
                    token_S[place_R] = draw_unfiltered(p_RV, uniform_S[place_R])

    def _logprobs(
        self, logits_SV: Tensor, rows: Sequence[int], token_S: Tensor, failed: dict[int, str]
    ) -> dict[int, TokenLogprobs]:
        wanted = self._settings.num_logprobs
        places = [i for i, row in enumerate(rows) if row in wanted and i not in failed] if wanted else []
        if not places:
            return {}
        place_R = torch.tensor(places, device=self._device)
        found = token_logprobs(_take(logits_SV, places), token_S[place_R], [wanted[rows[i]] for i in places])
        return {rows[place]: logprobs for place, logprobs in zip(places, found, strict=True)}


def _unusable(best_S: Tensor) -> list[int]:
    """Places whose largest logit is NaN or infinite: NaN or inf anywhere shows there, so does all -inf."""
    places: list[int] = (~best_S.isfinite()).nonzero().squeeze(1).tolist()
    return places


def _take(logits_SV: Tensor, places: list[int]) -> Tensor:
    """The logits of these places (ascending), without a copy where they are neighbours."""
    first, last = places[0], places[-1]
    return logits_SV[first : last + 1] if last - first == len(places) - 1 else logits_SV[places]


def _blanked(logits_SV: Tensor, places: list[int]) -> Tensor:
    """A copy with these rows set to 0, so that what is computed on them stays harmless."""
    blanked_SV = logits_SV.clone()
    blanked_SV[places] = 0.0
    return blanked_SV
