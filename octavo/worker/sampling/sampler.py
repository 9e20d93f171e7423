"""Sampler: one token for each row of a step. `sample` reads as the order of work.

A row's token depends on its logits, settings, history, key and position alone; a row that cannot be
sampled is reported and disturbs no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.ops.sampling.choose import FINE, choose_tokens
from octavo.worker.sampling.bad_words import bad_words_on
from octavo.worker.sampling.dry import Dry
from octavo.worker.sampling.history import History, TokenTable
from octavo.worker.sampling.logprobs import PendingLogprobs, given_logprobs, token_logprobs
from octavo.worker.sampling.masks import AllowedTokens, LogitBias, MinTokens
from octavo.worker.sampling.penalties import apply_penalties
from octavo.worker.sampling.pending import MODEL_BROKEN, OF_CHANGED, OF_MODEL, PendingSample
from octavo.worker.sampling.processors import LogitsProcessors
from octavo.worker.sampling.rows import SamplingRows
from octavo.worker.sampling.shape import apply_shape
from octavo.worker.sampling.thinking import ThinkingBudgets
from octavo.worker.sampling.token_masks import TokenMasks
from octavo.worker.upload import upload


class Sampler:
    """Holds the sampling state of all rows of one worker. One thread."""

    def __init__(self, *, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._choose = choose_tokens.on(device)
        self._settings = SamplingRows(num_rows=num_rows, vocab_size=vocab_size, device=device)
        self._processors = LogitsProcessors()
        self._bias = LogitBias(device)
        self._allowed = AllowedTokens(device)
        self._bad_words = bad_words_on(device)
        self._min_tokens = MinTokens(device)
        self._dry = Dry(device)
        self._thinking = ThinkingBudgets(device)
        self.step_masks = TokenMasks(vocab_size, device)
        """For extras to fill before a step samples."""

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
        self._dry.add_row(row, params)
        self._thinking.add_row(row, params)

    def remove_row(self, row: int) -> None:
        """Forget a row. Idempotent."""
        self._settings.remove(row)
        self._processors.remove_row(row)
        self._bias.tables.drop(row)
        self._allowed.tables.drop(row)
        self._bad_words.remove_row(row)
        self._min_tokens.tables.drop(row)
        self._dry.remove_row(row)
        self._thinking.remove_row(row)

    @torch.no_grad()
    def sample(self, logits_SV: Tensor, rows: Sequence[int], token_rows: TokenTable) -> PendingSample:
        """Choose the next token of each row. The logits are left as they are.

        On a GPU everything is enqueued and nothing is waited for, unless a row has logits processors.
        The table still counts the tokens before the one that is chosen here.
        """
        rows = list(rows)
        assert logits_SV.shape == (len(rows), self._vocab_size), "logits are [rows, vocabulary]"
        if not rows:
            return PendingSample(torch.zeros(2, 0, dtype=torch.int32, device=self._device), rows)
        history = History(token_rows, rows, self._device)
        draws = self._settings.draws(history)
        thinking = self._thinking.places(history)
        messages = OF_MODEL
        processor_failures: dict[int, str] = {}
        if thinking or self._is_changed(rows) or self._is_masked(rows):
            messages = OF_CHANGED
            # Before a mask may hide what is wrong with them.
            model_codes_S = self._choose(logits_SV, None)[1]
            changed_SV = logits_SV.to(torch.float32, copy=True)
            processor_failures = self._change(changed_SV, history)
            self._mask(changed_SV, history)
            self._thinking.apply(changed_SV, thinking, history)
            chosen_2S = self._choose(changed_SV, draws)
            self._mark_failures(chosen_2S, model_codes_S, list(processor_failures))
        else:
            chosen_2S = self._choose(logits_SV, draws)
        logprobs, places = self._logprobs(logits_SV, rows, chosen_2S[0])
        return PendingSample(
            chosen_2S,
            rows,
            messages=messages,
            processor_failures=processor_failures,
            logprobs=logprobs,
            logprob_places=places,
        )

    def warm_up(self, dtype: torch.dtype, token_rows: TokenTable) -> None:
        """Let kernels be compiled now, for logits of this type, not in the first step that needs them.

        Uses row 0, which nobody may have taken yet.
        """
        for params in (SamplingParams(temperature=0.0), SamplingParams(), SamplingParams(top_p=0.5)):
            self.add_row(0, params, 0, [], [0], 1)
            for logits_dtype in {dtype, torch.float32}:  # penalties and masks work on float32
                logits_SV = torch.zeros(1, self._vocab_size, dtype=logits_dtype, device=self._device)
                self.sample(logits_SV, [0], token_rows)
        self.step_masks.set([0], self.step_masks.blank(1))
        self.sample(logits_SV, [0], token_rows)
        self.remove_row(0)

    def _is_changed(self, rows: list[int]) -> bool:
        """Whether any row chooses from numbers other than the model's."""
        return (
            not self._settings.penalised.isdisjoint(rows)
            or not self._settings.shaped.isdisjoint(rows)
            or self._dry.used_by(rows)
            or self._processors.used_by(rows)
            or self._bias.tables.used_by(rows)
        )

    def _is_masked(self, rows: list[int]) -> bool:
        """Whether any row may choose only some of the tokens."""
        return (
            self.step_masks.is_set
            or self._allowed.tables.used_by(rows)
            or self._bad_words.used_by(rows)
            or self._min_tokens.tables.used_by(rows)
        )

    def _change(self, logits_SV: Tensor, history: History) -> dict[int, str]:
        """Processors, bias and penalties. Returns what processors did wrong, by place."""
        rows = history.rows
        failed = self._processors.apply(logits_SV, rows, history)
        self._bias.apply(logits_SV, rows)
        penalised = [place for place, row in enumerate(rows) if row in self._settings.penalised]
        apply_penalties(logits_SV, penalised, history, self._settings)
        self._dry.apply(logits_SV, history)
        return failed

    def _mask(self, logits_SV: Tensor, history: History) -> None:
        """The masks, and then the filters that run here."""
        rows = history.rows
        self.step_masks.apply(logits_SV)
        self._allowed.apply(logits_SV, rows)
        self._bad_words.apply(logits_SV, rows, history)
        self._min_tokens.apply(logits_SV, rows, history)
        shaped = [place for place, row in enumerate(rows) if row in self._settings.shaped]
        apply_shape(logits_SV, shaped, history, self._settings)

    def _mark_failures(self, chosen_2S: Tensor, model_codes_S: Tensor, processor_failed: list[int]) -> None:
        """Rows whose logits were unusable from the start, and those whose processors failed, get token 0."""
        is_broken_S = model_codes_S != FINE
        chosen_2S[0].masked_fill_(is_broken_S, 0)
        chosen_2S[1].masked_fill_(is_broken_S, MODEL_BROKEN)
        if processor_failed:
            chosen_2S[0].index_fill_(0, upload(processor_failed, torch.int64, self._device), 0)

    def _logprobs(
        self, logits_SV: Tensor, rows: list[int], token_S: Tensor
    ) -> tuple[PendingLogprobs | None, list[int]]:
        """Where asked for, and those places. Of failed rows too, as only the device knows them yet."""
        num_best, given = self._settings.num_logprobs, self._settings.logprob_ids
        if not (num_best or given):
            return None, []
        places = [place for place, row in enumerate(rows) if row in num_best] if num_best else []
        logits_RV, token_R = self._take(logits_SV, token_S, places)
        found = token_logprobs(logits_RV, token_R, [num_best[rows[place]] for place in places])
        if given:
            asking = [place for place, row in enumerate(rows) if row in given]
            logits_RV, token_R = self._take(logits_SV, token_S, asking)
            found = found.followed_by(
                given_logprobs(logits_RV, token_R, [given[rows[place]] for place in asking])
            )
            places += asking
        return found, places

    def _take(self, logits_SV: Tensor, token_S: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
        """Of these places, without a copy where they are all or none."""
        if len(places) in (0, len(token_S)):
            return logits_SV[: len(places)], token_S[: len(places)]
        place_R = upload(places, torch.int64, self._device)
        return logits_SV[place_R], token_S[place_R]
