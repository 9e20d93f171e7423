"""ModelRunner: one step on one device, in order. No feature words here: features are extras.

Hot path, in two halves: `submit` puts all work of a step on the device's queue and returns; `finish`
waits for it, the one place where the host waits for the device. T tokens, R rows that sample, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from octavo.messages.result import StepOutput
from octavo.messages.step import SchedulerOutput
from octavo.worker.extras.contract import Extra, GivenInputs, StepResult
from octavo.worker.forward import Forward
from octavo.worker.graphs import StepGraphs
from octavo.worker.rows import TokenRows
from octavo.worker.sampling.pending import PendingSample
from octavo.worker.sampling.placeholders import RowSampler
from octavo.worker.step_batch import StepBatch, order_step
from octavo.worker.step_buffers import StepBuffers


@dataclass(frozen=True, kw_only=True)
class PendingStep:
    """A step on its way through the device."""

    step: int
    batch: StepBatch | None
    """None: the step only brought changes."""
    sampled: PendingSample | None
    result: StepResult
    done: torch.cuda.Event | None
    """Recorded behind the step's last operation; None on a CPU, which is done when it returns."""


class ModelRunner:
    """Runs steps in the order they come. One thread."""

    def __init__(
        self,
        *,
        logits: Callable[[torch.Tensor], torch.Tensor],
        rows: TokenRows,
        buffers: StepBuffers,
        forward: Forward,
        graphs: StepGraphs | None,
        sampler: RowSampler,
        extras: Sequence[Extra],
    ) -> None:
        self._logits = logits
        self.rows = rows
        self.buffers = buffers
        self.sampler = sampler
        self.extras = list(extras)
        self._forward = forward
        self._graphs = graphs

    @torch.inference_mode()
    def submit(self, step: SchedulerOutput) -> PendingStep:
        """Take in the changes, compute the step's tokens, sample where a row's last token was reached."""
        self._apply(step)
        result = StepResult()
        if not step.rows:
            return PendingStep(step=step.step, batch=None, sampled=None, result=result, done=None)
        batch = order_step(self.rows, step, self._forward.long_prompt)
        self.buffers.load(batch)
        for extra in self.extras:
            extra.before_forward(batch)
        hidden_TE = self._compute(batch)
        self.rows.advance(batch.rows, batch.num_tokens)
        for extra in self.extras:
            extra.after_forward(batch, hidden_TE, result)
        sampled = self._sample(batch, hidden_TE)
        for extra in self.extras:
            extra.after_sample(batch, sampled, result)
        pending = PendingStep(
            step=step.step, batch=batch, sampled=sampled, result=result, done=self._mark_done()
        )
        if self._graphs is not None and not self._graphs.is_complete:
            # The device is busy with this step meanwhile.
            self._graphs.capture_next()
        return pending

    def finish(self, pending: PendingStep) -> StepOutput:
        """What a submitted step brought. Steps are finished in the order they were submitted."""
        if pending.done is not None:
            # The marked place: here the host waits for the device.
            pending.done.synchronize()
        if pending.batch is None or pending.sampled is None:
            return StepOutput(step=pending.step, rows=[], token_ids=[])
        pending.result.finish()
        sampled = pending.sampled.finish()
        rows, token_ids = pending.batch.sample_rows, sampled.token_ids
        failed = pending.result.failed | sampled.failed
        if failed:
            kept = [i for i, row in enumerate(rows) if row not in failed]
            rows, token_ids = [rows[i] for i in kept], [token_ids[i] for i in kept]
            for row in failed:
                pending.result.forced.pop(row, None)
        return StepOutput(
            step=pending.step,
            rows=rows,
            token_ids=token_ids,
            logprobs=sampled.logprobs,
            prompt_logprobs=pending.result.prompt_logprobs,
            failed=failed,
            refused=[
                *(row for row in pending.result.refused if row not in sampled.failed),
                *(row for row in sampled.refused if row not in pending.result.failed),
            ],
            forced=pending.result.forced,
            numbers=pending.result.numbers,
        )

    def _apply(self, step: SchedulerOutput) -> None:
        for row in step.ended_rows:
            self.sampler.remove_row(row)
        self.rows.apply(step)
        for new in step.new_rows:
            self.sampler.add_row(
                new.row,
                new.params,
                new.random_key,
                new.eos_token_ids,
                new.token_ids,
                new.num_prompt_tokens,
            )
        if step.ended_rows or step.new_rows:
            for extra in self.extras:
                extra.requests_changed(step)

    def _compute(self, batch: StepBatch) -> torch.Tensor:
        given: list[GivenInputs] = []
        for extra in self.extras:
            extra.give_inputs(batch, given)
        hidden_TE = None if self._graphs is None or given else self._graphs.run(batch)
        return self._forward.run(batch, given) if hidden_TE is None else hidden_TE

    def _sample(self, batch: StepBatch, hidden_TE: torch.Tensor) -> PendingSample:
        count = len(batch.sampling)
        if not batch.samples_everywhere:
            hidden_TE = hidden_TE.index_select(0, self.buffers.sample_tokens_R[:count])
        logits_RV = self._logits(hidden_TE)
        for extra in self.extras:
            logits_RV = extra.before_sample(batch, logits_RV)
        sampled = self.sampler.sample(logits_RV, batch.sample_rows, self.rows)
        # Rows that failed take their placeholder too, so that all counts follow from the protocol alone.
        self.rows.append(
            batch.sample_rows,
            self.buffers.sample_rows_R[:count],
            self.buffers.sample_columns_R[:count],
            sampled.token_ids,
        )
        return sampled

    def _mark_done(self) -> torch.cuda.Event | None:
        if self.rows.device.type != "cuda":
            return None
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return done
