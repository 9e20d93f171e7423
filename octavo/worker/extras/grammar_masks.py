"""Grammar masks: rows that answer in a form may choose only tokens that the form allows next.

The grammar of a row follows its tokens on the host. On a CPU they are known when the next step begins, and
the masks are filled while the step is computed. On a GPU the next step is handed over before the tokens of
the one before are known: there this waits for them, behind the forward that the device works on meanwhile.
This is a marked place where the host waits, and only in steps with such rows.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.grammar.matchers import Matchers, RowGrammar
from octavo.messages.params import SamplingParams
from octavo.messages.step import SchedulerOutput
from octavo.worker.extras.contract import Extra, StepResult
from octavo.worker.rows import TokenRows
from octavo.worker.sampling.pending import PendingSample
from octavo.worker.sampling.token_masks import TokenMasks, mask_words
from octavo.worker.step_batch import StepBatch

Masked = tuple[list[int], torch.Tensor]
"""Places in the step, and their masks."""


class GrammarMasks(Extra):
    """Holds the grammars of rows. One thread, and a second one that fills masks during a forward."""

    def __init__(
        self,
        matchers: Matchers,
        masks: TokenMasks,
        rows: TokenRows,
        *,
        vocab_size: int,
        is_overlapping: bool,
    ) -> None:
        """is_overlapping: a step is handed over before the one before it is done."""
        self._matchers = matchers
        self._masks = masks
        self._rows = rows
        self._num_words = mask_words(vocab_size)
        self._is_early = rows.device.type == "cpu"
        """Tokens of the step before are known when a step begins."""
        self._jumps = self._is_early and not is_overlapping
        self._may_jump: set[int] = set()
        """Rows that nobody asks anything of but text: forced tokens are not looked at again."""
        self._grammars: dict[int, RowGrammar] = {}
        self._open_masks: dict[int, NDArray[np.int32]] = {}
        """By row: everything but the end, while its grammar has not begun."""
        self._sampled: deque[_Sampled] = deque()
        """Steps whose tokens the grammars have not seen, oldest first."""
        self._filling: Future[Masked] | None = None
        self._filler: ThreadPoolExecutor | None = None
        self._failed: dict[int, str] = {}

    def requests_changed(self, step: SchedulerOutput) -> None:
        self._drop_filling()
        for row in step.ended_rows:
            self._forget(row)
        for new in step.new_rows:
            self._forget(new.row)
            form = new.params.structured_outputs
            if form is not None:
                self._grammars[new.row] = self._matchers.open(form, new.token_ids[new.num_prompt_tokens :])
                self._open_masks[new.row] = _all_but(new.eos_token_ids, self._num_words)
                if _is_plain(new.params):
                    self._may_jump.add(new.row)

    def before_forward(self, batch: StepBatch) -> None:
        self._masks.forget()  # Of a step that was lost.
        self._drop_filling()
        if self._is_early and self._concerns(batch):
            self._catch_up()
            self._filler = self._filler or ThreadPoolExecutor(1, thread_name_prefix="octavo-masks")
            self._filling = self._filler.submit(self._fill, batch.sample_rows)

    def before_sample(self, batch: StepBatch, logits_RV: torch.Tensor) -> torch.Tensor:
        if not self._concerns(batch):
            return logits_RV
        masked = self._wait_for_filler()
        if masked is None:
            self._catch_up()
            masked = self._fill(batch.sample_rows)
        self._masks.set(*masked)
        self._failed = {
            row: self._grammars[row].failure or ""
            for row in batch.sample_rows
            if row in self._grammars and self._grammars[row].failure is not None
        }
        return logits_RV

    def after_sample(self, batch: StepBatch, sampled: PendingSample, result: StepResult) -> None:
        if not self._concerns(batch):
            return
        result.failed.update(self._failed)
        result.refused.extend(row for row in self._failed if self._grammars[row].is_too_large)
        self._failed = {}
        takers = [
            (place, self._grammars[row])
            for place, row in enumerate(batch.sample_rows)
            if row in self._grammars
        ]
        self._sampled.append(_Sampled(takers, sampled, is_on_gpu=not self._is_early))
        if self._jumps:
            self._catch_up()
            self._jump(batch, result)

    def _jump(self, batch: StepBatch, result: StepResult) -> None:
        """Where only one text can follow, say it without asking: the next step computes it in one go."""
        for row in batch.sample_rows:
            if row not in self._may_jump or row in result.failed:
                continue
            tokens = self._rows.append_known(row, self._grammars[row].jump())
            if tokens:
                result.forced[row] = tokens

    def _forget(self, row: int) -> None:
        self._grammars.pop(row, None)
        self._open_masks.pop(row, None)
        self._may_jump.discard(row)

    def _concerns(self, batch: StepBatch) -> bool:
        return bool(self._grammars) and any(row in self._grammars for row in batch.sample_rows)

    def _wait_for_filler(self) -> Masked | None:
        filling, self._filling = self._filling, None
        return None if filling is None else filling.result()

    def _drop_filling(self) -> None:
        """Of a step that was lost: nobody asks how it went, but grammars are used by one thread at a time."""
        filling, self._filling = self._filling, None
        if filling is not None:
            wait((filling,))

    def _catch_up(self) -> None:
        """Show the grammars all tokens that were sampled. On a GPU this waits: the marked place."""
        while self._sampled:
            self._sampled.popleft().hand_over()

    def _fill(self, rows: list[int]) -> Masked:
        """Masks of these rows where they have grammars that say something.

        One after the other: on a host of 16 cores 32 masks took 1.8 ms so, and 2.0 to 2.6 ms on 4 to 14
        threads (llguidance 1.9).
        """
        places = [place for place, row in enumerate(rows) if row in self._grammars]
        allowed_MW = self._masks.blank(len(places))
        bits_MW: NDArray[np.int32] = allowed_MW.numpy()
        for index, place in enumerate(places):
            row = rows[place]
            grammar = self._grammars[row]
            if not grammar.fill(bits_MW, index) and grammar.waits:
                bits_MW[index] = self._open_masks[row]
        return places, allowed_MW


def _is_plain(params: SamplingParams) -> bool:
    """Whether a token that can only follow may come without having been sampled."""
    asks = (params.logprobs, params.logprob_token_ids, params.logits_processors, params.bad_words_token_ids)
    return not any(ask is not None for ask in (*asks, params.allowed_token_ids, params.thinking_budget))


def _all_but(token_ids: list[int], num_words: int) -> NDArray[np.int32]:
    bits_W = np.full(num_words, 2**32 - 1, dtype=np.uint32)
    for token in token_ids:
        bits_W[token // 32] &= np.uint32(2**32 - 1 - 2 ** (token % 32))
    return bits_W.view(np.int32)


class _Sampled:
    """Tokens of a step on their way to the grammars of its rows."""

    def __init__(
        self, takers: list[tuple[int, RowGrammar]], sampled: PendingSample, *, is_on_gpu: bool
    ) -> None:
        self._takers = takers
        self._sampled = sampled
        self._done: torch.cuda.Event | None = None
        if is_on_gpu:
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def hand_over(self) -> None:
        if self._done is not None:
            self._done.synchronize()
        tokens = self._sampled.read_tokens()
        for place, grammar in self._takers:
            grammar.take(tokens[place])
