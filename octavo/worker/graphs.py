"""StepGraphs: forward passes captured as CUDA graphs, so that a step costs the host one launch.

Three kinds: steps of single tokens, the same where all sequences share a prefix, and small steps that hold
chunks too. Each is captured at a few sizes; a step runs in the smallest that holds it, and its empty places
do nothing. All graphs share one memory pool, as only one runs at a time. A step that fits none runs
eagerly: from a few thousand tokens on the device takes longer than the host does to launch everything.

T tokens, S sequences, E width.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from octavo.worker.forward import Forward
from octavo.worker.graph_sizes import graph_sizes, mixed_sizes, shared_sizes, single_sizes
from octavo.worker.step_batch import StepBatch
from octavo.worker.step_buffers import StepBounds

logger = logging.getLogger(__name__)


class _Kind(NamedTuple):
    has_chunks: bool
    shares_prefix: bool
    sizes: list[int]
    graphs: dict[int, torch.cuda.CUDAGraph]
    """By size, as far as they are captured."""


class StepGraphs:
    """Captured once, after the KV cache is there: all at start, or one after each of the first steps."""

    def __init__(
        self,
        forward: Forward,
        *,
        max_seqs: int,
        max_tokens: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._forward = forward
        self._max_seqs = max_seqs
        self._pool = torch.cuda.graph_pool_handle()
        self._singles = _Kind(False, False, single_sizes(max_seqs), {})
        self._shared = _Kind(False, True, shared_sizes(max_seqs), {})
        self._mixed = _Kind(True, False, mixed_sizes(max_tokens), {})
        largest = max(graph_sizes(max_seqs, max_tokens))
        self._hidden_TE = torch.empty(largest, width, dtype=dtype, device=device)
        """Where every graph leaves its result."""
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Largest last: they are taken from the end, so that the smaller ones fit into the pool.
        kinds = (self._singles, self._shared, self._mixed)
        self._missing = [(kind, size) for kind in kinds for size in kind.sizes]

    def __len__(self) -> int:
        """How many are captured."""
        return sum(len(kind.graphs) for kind in (self._singles, self._shared, self._mixed))

    @property
    def is_complete(self) -> bool:
        return not self._missing

    def capture_all(self) -> None:
        """Capture all sizes now."""
        with tqdm(total=len(self._missing), desc="Capturing graphs", disable=None, leave=False) as progress:
            while self._missing:
                self.capture_next()
                progress.update()

    @torch.inference_mode()
    def capture_next(self) -> None:
        """Capture one more size, if any is missing. Steps may run in between.

        Its operations must have run before (see warm_up.py): nothing may be compiled while it is recorded.
        """
        if not self._missing:
            return
        kind, size = self._missing.pop()
        bounds = self._bounds(kind, size)
        try:
            if not len(self):
                self._run_without_waiting(bounds)
            kind.graphs[size] = self._capture(bounds)
        except torch.OutOfMemoryError:
            logger.warning(
                "No memory is left for %d of the graphs: steps of those sizes run without, slower. Lower "
                "memory_utilization to have them all.",
                1 + len(self._missing),
            )
            self._missing.clear()
        except RuntimeError as error:
            logger.warning(
                "This model's steps cannot be captured as graphs and run without, slower: %s",
                str(error).strip().splitlines()[0],
            )
            self._missing.clear()

    def _run_without_waiting(self, bounds: StepBounds) -> None:
        """Raises RuntimeError if the host has to wait for the device: found out here, as a capture that fails
        leaves torch's generators and its allocator in the middle of one.
        """
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            self._forward.run_bounded(bounds, None)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def _capture(self, bounds: StepBounds) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                hidden_TE = self._forward.run_bounded(bounds, None)
                self._hidden_TE[: bounds.num_tokens].copy_(hidden_TE)
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph

    def run(self, batch: StepBatch) -> torch.Tensor | None:
        """Hidden states [T, E] of a step whose numbers are loaded, or None if no graph holds it."""
        if batch.view.num_paged < len(batch.rows):
            return None
        if batch.num_singles < len(batch.rows):
            kind = self._mixed
        else:
            kind = self._shared if batch.num_shared_blocks else self._singles
        place = bisect_left(kind.sizes, batch.total_tokens)
        graph = kind.graphs.get(kind.sizes[place]) if place < len(kind.sizes) else None
        if graph is None:
            return None
        graph.replay()
        return self._hidden_TE[: batch.total_tokens]

    def _bounds(self, kind: _Kind, size: int) -> StepBounds:
        num_seqs = min(size, self._max_seqs)
        return StepBounds(
            num_tokens=size,
            num_seqs=num_seqs,
            num_singles=num_seqs,
            has_chunks=kind.has_chunks,
            shares_prefix=kind.shares_prefix,
        )
