"""Worker: the life of one device, from files to steps. Importing this module imports torch."""

from __future__ import annotations

import time

import torch

from octavo.attention.choose import attention_needs, choose_backend
from octavo.config.cache import CacheConfig
from octavo.config.model import ModelConfig
from octavo.config.schedule import ScheduleConfig
from octavo.messages.kv import KVPlan
from octavo.messages.result import StepOutput
from octavo.messages.start import WorkerFacts
from octavo.messages.step import SchedulerOutput
from octavo.models.contract import CausalLM
from octavo.models.load import load_weights
from octavo.models.table import find_model_class
from octavo.weights.checkpoint import Checkpoint
from octavo.worker.extras.prompt_logprobs import PromptLogprobs
from octavo.worker.kv_tensors import KVTensors
from octavo.worker.memory import kv_cache_bytes, step_bytes
from octavo.worker.rows import TokenRows
from octavo.worker.runner import ModelRunner
from octavo.worker.sampling.sampler import Sampler


class Worker:
    """load, allocate, run as often as wanted, shutdown: in this order, from one thread.

    All config groups are resolved. Takes the checkpoint over and closes it.
    """

    def __init__(
        self, *, model: ModelConfig, cache: CacheConfig, schedule: ScheduleConfig, checkpoint: Checkpoint
    ) -> None:
        self._model_config = model
        self._cache = cache
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._device = torch.device("cpu")
        self._dtype: torch.dtype = getattr(torch, model.dtype)
        self._model: CausalLM | None = None
        self._runner: ModelRunner | None = None

    def load(self) -> WorkerFacts:
        """Build the model and put its weights in. Raises ModelFileError or ConfigError."""
        began = time.monotonic()
        model_class = find_model_class(self._checkpoint.config)
        model = model_class(self._checkpoint.config, dtype=self._dtype, device=self._device)
        self._backend = choose_backend(
            attention_needs(model.kv_layers(), model.num_heads, self._dtype, self._device)
        )
        placed = load_weights(model, self._checkpoint)
        self._checkpoint.close()
        self._model = model
        sizes = {"hidden_size": model.hidden_size, "vocab_size": model.vocab_size}
        return WorkerFacts(
            kv_layers=model.kv_layers(),
            vocab_size=model.vocab_size,
            available_bytes=kv_cache_bytes(self._cache, self._schedule, **sizes, device=self._device),
            memory_bytes={
                "weights": placed.copied_bytes,
                "weights_mapped": placed.mapped_bytes,
                "step (estimate)": step_bytes(self._schedule, **sizes),
            },
            seconds={"weights": time.monotonic() - began},
        )

    def allocate(self, plan: KVPlan) -> None:
        """Make rows and KV pages. Called once, after load."""
        assert self._model is not None, "load comes before allocate"
        assert self._model_config.max_model_len is not None, "the config is resolved"
        rows = TokenRows(
            num_rows=self._schedule.max_num_seqs,
            max_model_len=self._model_config.max_model_len,
            block_size=plan.block_size,
            num_groups=len(plan.groups),
            device=self._device,
        )
        self._runner = ModelRunner(
            model=self._model,
            backend=self._backend,
            kv=KVTensors(plan, dtype=self._dtype, device=self._device),
            rows=rows,
            sampler=Sampler(
                num_rows=self._schedule.max_num_seqs, vocab_size=self._model.vocab_size, device=self._device
            ),
            extras=[PromptLogprobs(rows, self._model.logits)],
        )

    def run(self, step: SchedulerOutput) -> StepOutput:
        assert self._runner is not None, "allocate comes before run"
        return self._runner.run(step)

    def shutdown(self) -> None:
        """Let go of everything. Idempotent."""
        self._runner = None
        self._model = None
        self._checkpoint.close()
