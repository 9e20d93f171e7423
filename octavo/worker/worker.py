"""Worker: the life of one device, from files to steps. Importing this module imports torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from octavo.attention.choose import attention_needs, choose_backend
from octavo.attention.contract import StepLimits
from octavo.base.errors import DeviceBroken, DeviceOutOfMemory
from octavo.base.native import native_kernels, why_no_kernels
from octavo.config.cache import CacheConfig
from octavo.config.model import ModelConfig
from octavo.config.schedule import ScheduleConfig
from octavo.grammar.vocabulary import Words, no_words
from octavo.messages.kv import KV_DTYPES, KVPlan
from octavo.messages.result import StepOutput
from octavo.messages.start import WorkerFacts
from octavo.messages.step import SchedulerOutput
from octavo.models.contract import Backbone
from octavo.models.native_layers import as_native
from octavo.weights.checkpoint import Checkpoint
from octavo.worker.forward import Forward
from octavo.worker.give_back import give_back_memory
from octavo.worker.graphs import StepGraphs
from octavo.worker.held_model import HeldModel
from octavo.worker.kv_tensors import KVTensors
from octavo.worker.memory import check_cache_fits, kv_cache_bytes
from octavo.worker.native_forward import NativeForward
from octavo.worker.needs import needs_of
from octavo.worker.placing import placement_of
from octavo.worker.purpose import Purpose, purpose_of
from octavo.worker.row_states import RowStates
from octavo.worker.rows import TokenRows
from octavo.worker.runner import ModelRunner, PendingStep
from octavo.worker.step_attention import AttentionSteps, PackedSteps, PagedSteps
from octavo.worker.step_buffers import StepBuffers

if TYPE_CHECKING:
    from octavo.ops.triton.compile_ahead import KernelCompilers

logger = logging.getLogger(__name__)

_NO_ROOM_TO_WAKE = (
    "The device's memory does not hold the engine any more: other programs took it meanwhile. Free some "
    "of it, then wake the engine up again."
)
_BROKEN = "The device reported an error that it does not recover from."
_OUT_OF_MEMORY = (
    "The device's memory does not hold this step beside what other programs take. Free some of it, or lower "
    "memory_utilization or max_num_batched_tokens; `octavo plan MODEL` shows what fits."
)


class Worker:
    """load, allocate, then submit and finish as often as wanted, shutdown: in this order, from one thread.

    Between two steps it may sleep and wake up, if no row is in use.

    All config groups are resolved. Takes the checkpoint over and closes it.
    """

    def __init__(
        self,
        *,
        model: ModelConfig,
        cache: CacheConfig,
        schedule: ScheduleConfig,
        checkpoint: Checkpoint,
        words: Callable[[], Words] | None = None,
    ) -> None:
        """words: loads the tokenizer, when the first grammar comes. Without it grammars are not followed."""
        assert model.max_model_len is not None, "the config is resolved"
        assert cache.kv_cache_dtype in KV_DTYPES, "the config is resolved"
        assert schedule.max_num_seqs is not None, "the config is resolved"
        assert schedule.max_num_batched_tokens is not None, "the config is resolved"
        self._config = model
        self._cache = cache
        self._words = words or no_words
        self._is_overlapping = bool(schedule.async_scheduling)
        self._placement = placement_of(model)
        self._held = HeldModel(checkpoint, model, self._placement, kv_dtype=cache.kv_cache_dtype)
        self._max_model_len = model.max_model_len
        self._max_seqs = schedule.max_num_seqs
        self._max_tokens = max(schedule.max_num_batched_tokens, schedule.max_num_seqs)
        self._kv_dtype: torch.dtype = getattr(torch, cache.kv_cache_dtype)
        self._plan: KVPlan | None = None
        self._runner: ModelRunner | None = None
        self._compilers: KernelCompilers | None = None
        """While kernels are still to be compiled; only on a GPU."""

    def load(self) -> WorkerFacts:
        """Build the model and put its weights in. Raises ModelFileError or ConfigError."""
        began = time.monotonic()
        place = self._placement
        if place.device.type == "cuda":
            self._compilers = _begin_to_compile()
        elif native_kernels() is None:
            logger.warning("Computing with torch, several times slower: %s.", why_no_kernels())
        placed = self._held.load()
        model = self._held.model
        self._backend = choose_backend(
            attention_needs(
                model.kv_layers(), model.num_heads, place.dtype, place.device, kv_dtype=self._kv_dtype
            ),
            has_native=place.native is not None,
        )
        loaded = time.monotonic()
        needs = needs_of(
            self._held,
            self._purpose(model),
            place,
            max_model_len=self._max_model_len,
            max_seqs=self._max_seqs,
            max_tokens=self._max_tokens,
            block_size=self._cache.block_size,
            captures_graphs=self._captures_graphs,
        )
        return WorkerFacts(
            kv_layers=self._held.kv_layers,
            vocab_size=model.vocab_size,
            hidden_size=model.hidden_size,
            available_bytes=kv_cache_bytes(
                self._cache,
                step_bytes=needs.step + needs.rows + needs.states,
                graph_bytes=needs.graphs,
                device=place.device,
            ),
            memory_bytes={
                "weights": placed.num_bytes,
                "largest step": needs.step,
                "rows": needs.rows,
                **({"recurrent state": needs.states} if needs.states else {}),
            },
            seconds={"weights": loaded - began, "measure a step": time.monotonic() - loaded},
        )

    def allocate(self, plan: KVPlan) -> dict[str, float]:
        """Make rows and KV pages, compile, capture graphs. Called after load. Seconds by part."""
        model, place = self._held.model, self._placement
        self._plan = plan
        check_cache_fits(plan.num_blocks * plan.block_bytes, place.device)
        rows = TokenRows(
            num_rows=self._max_seqs,
            max_model_len=self._max_model_len,
            block_size=plan.block_size,
            num_groups=len(plan.groups),
            device=place.device,
        )
        states = RowStates(self._held.recurrent_layers, num_rows=self._max_seqs, placement=place)
        buffers = StepBuffers(rows, max_seqs=self._max_seqs, max_tokens=self._max_tokens)
        forward = self._make_forward(model, self._attention(model, plan, buffers), states, buffers)
        purpose = self._purpose(model)
        sampler, extras = purpose.make(rows, self._max_seqs)
        began = time.monotonic()
        if self._compilers is not None:
            from octavo.worker.warm_up import warm_up  # needs Triton

            if self._held.remembers:
                warm_up(
                    purpose.logits,
                    forward,
                    sampler,
                    rows,
                    self._compilers,
                    width=model.hidden_size,
                    dtype=place.dtype,
                    max_tokens=self._max_tokens,
                )
            self._compilers.close()
        warmed = time.monotonic()
        graphs = self._make_graphs(model, forward)
        self._runner = ModelRunner(
            logits=purpose.logits,
            rows=rows,
            buffers=buffers,
            forward=forward,
            graphs=graphs,
            sampler=sampler,
            extras=extras,
        )
        if place.device.type == "cpu":
            return {}
        return {"kernels": warmed - began, "graphs": time.monotonic() - warmed}

    def submit(self, step: SchedulerOutput) -> PendingStep:
        """Enqueue a step. On a CPU it is done when this returns. Raises DeviceOutOfMemory or DeviceBroken."""
        assert self._runner is not None, "allocate comes before the first step"
        try:
            return self._runner.submit(step)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise DeviceOutOfMemory(_OUT_OF_MEMORY) from error
        except torch.AcceleratorError as error:
            raise DeviceBroken(_BROKEN) from error

    def finish(self, pending: PendingStep) -> StepOutput:
        """Wait for a submitted step. Raises DeviceBroken."""
        assert self._runner is not None, "allocate comes before the first step"
        try:
            return self._runner.finish(pending)
        except torch.AcceleratorError as error:  # No call of this process to the device works after one.
            raise DeviceBroken(_BROKEN) from error

    def sleep(self, level: int) -> None:
        """Give memory back: 1 keeps the weights (of a GPU in the host's memory), 2 drops them too."""
        self._runner = None
        if level >= 2:
            self._held.drop()
        else:
            self._held.leave_device()
        give_back_memory()

    def wake_up(self) -> None:
        """Make again what `sleep` gave back. If that fails the worker sleeps on and can be woken again."""
        assert self._plan is not None, "only who has been awake can sleep"
        if self._runner is not None:
            return
        try:
            self._held.return_to_device()
            self.allocate(self._plan)
        except BaseException as error:
            self.sleep(1)
            if isinstance(error, torch.OutOfMemoryError):
                raise DeviceOutOfMemory(_NO_ROOM_TO_WAKE) from error
            raise

    def shutdown(self) -> None:
        """Let go of everything. Idempotent."""
        self._runner = None
        self._held.close()
        if self._compilers is not None:
            self._compilers.close()

    def _attention(self, model: Backbone, plan: KVPlan, buffers: StepBuffers) -> AttentionSteps:
        if not self._held.remembers:
            return PackedSteps(buffers)
        place = self._placement
        kv = KVTensors(
            plan,
            dtype=self._kv_dtype,
            device=place.device,
            is_head_major=self._backend.is_head_major,
            turns_keys=self._backend.turns_keys,
        )
        limits = StepLimits(
            max_seqs=self._max_seqs,
            max_tokens=self._max_tokens,
            num_heads=model.num_heads,
            deterministic=place.deterministic,
            chunk_attention=self._config.chunk_attention,
            native=place.native,
        )
        return PagedSteps([self._backend(layout, limits) for layout in kv.layouts], kv, buffers)

    def _purpose(self, model: Backbone) -> Purpose:
        return purpose_of(model, self._words, is_overlapping=self._is_overlapping)

    @property
    def _captures_graphs(self) -> bool:
        """Steps of whole texts, without a cache, have too many shapes."""
        is_gpu = self._placement.device.type == "cuda"
        return is_gpu and self._held.remembers and not self._config.enforce_eager

    def _make_forward(
        self, model: Backbone, attention: AttentionSteps, states: RowStates, buffers: StepBuffers
    ) -> Forward:
        native = self._placement.native
        if native is not None and isinstance(attention, PagedSteps) and attention.turns_keys:
            decoder = as_native(model)
            if decoder is not None:
                return NativeForward(decoder, native, attention, states, buffers)
        return Forward(model, attention, states, buffers)

    def _make_graphs(self, model: Backbone, forward: Forward) -> StepGraphs | None:
        if not self._captures_graphs:
            return None
        place = self._placement
        graphs = StepGraphs(
            forward,
            max_seqs=self._max_seqs,
            max_tokens=self._max_tokens,
            width=model.hidden_size,
            dtype=place.dtype,
            device=place.device,
        )
        if self._config.graph_capture == "start":
            began, (free_before, _) = time.monotonic(), torch.cuda.mem_get_info(place.device)
            graphs.capture_all()
            torch.cuda.synchronize(place.device)
            taken = free_before - torch.cuda.mem_get_info(place.device)[0]
            seconds = time.monotonic() - began
            logger.info(
                "Captured %d graphs in %.1f s; they take %.2f GiB.", len(graphs), seconds, taken / 2**30
            )
        return graphs


def _begin_to_compile() -> KernelCompilers:
    from octavo.ops.triton.compile_ahead import KernelCompilers  # needs Triton

    compilers = KernelCompilers()
    compilers.start_if_all_is_new()
    return compilers
