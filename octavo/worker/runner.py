"""ModelRunner: one step on one device, in order. No feature words here: features are extras.

Hot path. The device is waited for in one marked place. T tokens, R rows that sample, E width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.attention.contract import AttentionBackend
from octavo.messages.result import StepOutput
from octavo.messages.step import SchedulerOutput
from octavo.models.contract import CausalLM, ModelInput
from octavo.worker.extras.contract import Extra, StepResult
from octavo.worker.gather import gather_batch
from octavo.worker.kv_tensors import KVTensors
from octavo.worker.rows import TokenRows
from octavo.worker.sampling.sampler import Sampled, Sampler
from octavo.worker.step_attention import StepAttention
from octavo.worker.step_batch import StepBatch


class ModelRunner:
    """Runs steps in the order they come. One thread."""

    def __init__(
        self,
        *,
        model: CausalLM,
        backend: type[AttentionBackend],
        kv: KVTensors,
        rows: TokenRows,
        sampler: Sampler,
        extras: Sequence[Extra],
    ) -> None:
        self.model = model
        self.kv = kv
        self.rows = rows
        self.sampler = sampler
        self.extras = list(extras)
        self._attention = [backend(layout) for layout in kv.layouts]

    @torch.inference_mode()
    def run(self, step: SchedulerOutput) -> StepOutput:
        """Take in the changes, compute the step's tokens, sample where a row's last token was reached."""
        self._apply(step)
        if not step.rows:
            return StepOutput(step=step.step, rows=[], token_ids=[])
        result = StepResult()
        batch = gather_batch(self.rows, step)
        for extra in self.extras:
            extra.before_forward(batch)
        hidden_TE = self._forward(batch)
        self.rows.advance(batch.rows, batch.num_tokens, batch.rows_S, batch.num_tokens_S)
        for extra in self.extras:
            extra.after_forward(batch, hidden_TE, result)
        sampled = self._sample(batch, hidden_TE)
        for extra in self.extras:
            extra.after_sample(batch, sampled, result)
        return _output(step.step, batch, sampled, result)

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

    def _forward(self, batch: StepBatch) -> torch.Tensor:
        attend = StepAttention(self._attention, self.kv, batch.views)
        return self.model.forward(
            ModelInput(token_ids_T=batch.token_ids_T, positions_T=batch.positions_T, attend=attend)
        )

    def _sample(self, batch: StepBatch, hidden_TE: torch.Tensor) -> Sampled:
        hidden_RE = hidden_TE if batch.sample_tokens_R is None else hidden_TE[batch.sample_tokens_R]
        logits_RV = self.model.logits(hidden_RE)
        for extra in self.extras:
            logits_RV = extra.before_sample(batch, logits_RV)
        sampled = self.sampler.sample(logits_RV, batch.sample_rows, self.rows)
        # Rows that failed take their placeholder too, so that all counts follow from the protocol alone.
        self.rows.append(batch.sample_rows, batch.sample_rows_R, sampled.token_ids)
        return sampled


def _output(step: int, batch: StepBatch, sampled: Sampled, result: StepResult) -> StepOutput:
    # The marked place: here the host waits for the device.
    token_ids = sampled.token_ids.tolist()
    rows = batch.sample_rows
    if sampled.failed:
        kept = [i for i, row in enumerate(rows) if row not in sampled.failed]
        rows, token_ids = [rows[i] for i in kept], [token_ids[i] for i in kept]
    return StepOutput(
        step=step,
        rows=rows,
        token_ids=token_ids,
        logprobs=sampled.logprobs,
        prompt_logprobs=result.prompt_logprobs,
        failed=sampled.failed,
    )
