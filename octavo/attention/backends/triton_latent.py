"""Latent attention over paged rows on a GPU. Hot path.

Single tokens and short chunks are absorbed, each by a kernel of its own; long chunks and long prompts without
a past are expanded (attention/latents.py says why). In deterministic mode one form and one kernel serve all.

T tokens, H heads, C width of the latent, R rotated width, W = C + R, D width of queries, V of values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from octavo.attention.contract import AttentionLayer, Capability, PageLayout, Pages, StepLimits
from octavo.attention.dense_chunk import dense_chunk
from octavo.attention.dense_prefill import dense_prefill
from octavo.attention.latents import LatentLayer, Latents, LatentShape
from octavo.attention.step_view import StepView
from octavo.base.errors import ConfigError
from octavo.base.integers import ceil_div
from octavo.ops.triton.latent_chunks import latent_chunks
from octavo.ops.triton.latent_decode import latent_decode
from octavo.ops.triton.latent_states import head_blocks
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, decode_splits
from octavo.ops.triton.tuning import multiprocessors

LONG_PROMPT = 512
"""From so many tokens on a prompt or a chunk may be expanded: the operations of attention fall to 0.3.

512 tokens on an H100, expanding included: 31 us instead of 49 for DeepSeek-V2-Lite's heads, 127 instead of
210 for V3's.
"""
MOST_CAPTURED_SPLITS = 8
CAPTURED_SLOTS = 1024
"""States of a captured step with chunks: for 64 heads of 512 they take 134 MB."""


class TritonLatentAttention:
    """The backend for CUDA devices."""

    capabilities = frozenset(Capability) - {
        Capability.CPU,
        Capability.FULL,
        Capability.SLIDING_WINDOW,
        Capability.SCORE_TERMS,
    }
    is_head_major = False
    turns_keys = False

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None:
        if limits.chunk_attention != "triton":
            raise ConfigError(
                f"chunk_attention is {limits.chunk_attention!r}, which reads keys and values of at most 128 "
                f"columns; this model keeps rows of {layout.head_dim}. Leave it at 'triton'.",
                param="chunk_attention",
            )
        assert layout.value_dim is not None, "latent rows hold their values"
        is_narrow = layout.dtype in (torch.float16, torch.bfloat16)
        self.layout = layout
        self.max_tokens = limits.max_tokens
        self.latents = Latents(layout.device)
        self.deterministic = limits.deterministic
        self.long_prompt = LONG_PROMPT if is_narrow and not limits.deterministic else None
        self.num_parts = head_blocks(limits.num_heads)
        self.num_sms = multiprocessors(layout.device)
        self.workspace = DecodeWorkspace.allocate(
            max_seqs=limits.max_seqs,
            num_heads=limits.num_heads,
            num_kv_heads=self.num_parts,
            head_dim=layout.value_dim,
            num_sms=self.num_sms,
            device=layout.device,
            least_slots=CAPTURED_SLOTS,
        )

    def plan(self, view: StepView) -> TritonLatentPlan:
        return TritonLatentPlan(self, view, self._num_splits(view))

    def expands(self, shape: LatentShape, num_queries: int, num_keys: int) -> bool:
        """Whether a chunk is: where it pays, and its keys and values fit into what a step may take."""
        if self.long_prompt is None or num_queries < self.long_prompt:
            return False
        room = self.max_tokens * max(shape.work_per_head, shape.expanded_per_head)
        return num_keys * shape.expanded_per_head <= room and shape.expanding_pays(num_queries, num_keys)

    def _num_splits(self, view: StepView) -> int:
        num_pairs = max(view.num_singles, 1) * self.num_parts
        most = decode_splits(max(view.num_singles, 1), self.num_parts, self.num_sms)
        if view.host is not None or not view.has_chunks:
            return most
        # Captured with chunks: there may be few single tokens, and their sequences may be long.
        return max(most, min(CAPTURED_SLOTS // num_pairs, MOST_CAPTURED_SPLITS))


class Expanded(NamedTuple):
    """Tokens start..end of one sequence."""

    start: int
    end: int
    rows_L: torch.Tensor | None
    """Of the page array: all its tokens; None if it begins here, so that its rows are at hand."""


class Cut(NamedTuple):
    """A step, cut in two."""

    num_absorbed: int
    """Tokens: single ones and chunks, in front."""
    has_chunks: bool
    counts: torch.Tensor
    """The view's, for these."""
    expanded: list[Expanded]


class TritonLatentPlan:
    """What to launch for each layer."""

    def __init__(self, backend: TritonLatentAttention, view: StepView, num_splits: int) -> None:
        self._backend = backend
        self._view = view
        self.num_splits = num_splits
        self._cut: Cut | None = None

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        latent, q_THD, rows_TW = self._backend.latents.prepare(layer, qkv_TO, self._view, pages)
        if self._cut is None:  # the first layer: all have the same widths
            self._cut = self._cut_for(latent.shape)
        cut = self._cut
        if not cut.expanded:
            return self._paged(cut, latent, q_THD, pages).flatten(1)
        out_THV = q_THD.new_empty(*q_THD.shape[:2], latent.shape.value)
        if cut.num_absorbed > 0:
            absorbed = slice(0, cut.num_absorbed)
            out_THV[absorbed] = self._paged(cut, latent, q_THD[absorbed], pages)
        for start, end, rows_L in cut.expanded:
            part, scale = slice(start, end), latent.terms.scale
            if rows_L is None:
                out_THV[part] = dense_prefill(q_THD[part], *latent.expand(rows_TW[part]), scale)
            else:
                rows_LW = pages.rows_RC.index_select(0, rows_L)
                out_THV[part] = dense_chunk(q_THD[part], *latent.expand(rows_LW), scale)
        return out_THV.flatten(1)

    def _cut_for(self, shape: LatentShape) -> Cut:
        """The longest chunks come last, and so do those that are expanded."""
        view, host = self._view, self._view.host
        if host is None:
            return Cut(view.num_tokens, view.has_chunks, view.counts, [])
        starts, last = host.query_starts, host.num_paged
        while last > view.num_singles and self._backend.expands(
            shape, starts[last] - starts[last - 1], host.lengths[last - 1]
        ):
            last -= 1
        counts = view.counts
        if last < host.num_paged:
            counts = counts.clone()
            counts[1:2].fill_(last)
        expanded = [
            Expanded(starts[i], starts[i + 1], self._rows(i, host.lengths[i]) if i < host.num_paged else None)
            for i in range(last, view.num_seqs)
        ]
        return Cut(starts[last], last > view.num_singles, counts, expanded)

    def _rows(self, sequence: int, length: int) -> torch.Tensor:
        """Where the tokens of a sequence lie in the page array."""
        view, layout = self._view, self._backend.layout
        num_blocks = ceil_div(length, layout.block_size)
        row_1 = view.rows_S[sequence : sequence + 1]
        blocks_M = view.table_RM[:, :num_blocks].index_select(0, row_1)[0].long()
        token_N = torch.arange(layout.block_size, device=blocks_M.device)
        return (blocks_M[:, None] * layout.rows_per_page + token_N).flatten()[:length]

    def _paged(self, cut: Cut, layer: LatentLayer, q_THD: torch.Tensor, pages: Pages) -> torch.Tensor:
        """[T, H, V] of single tokens and chunks."""
        view, backend = self._view, self._backend
        q_THC, q_THR = layer.absorb(q_THD), q_THD[..., layer.shape.nope :]
        pages_BNW = pages.keys_BKND[:, 0]
        sums_THC = torch.empty_like(q_THC)
        if view.num_singles > 0 and not backend.deterministic:
            latent_decode(
                q_THC,
                q_THR,
                pages_BNW,
                view.table_RM,
                view.rows_S,
                view.lengths_S,
                view.counts,
                sums_THC,
                layer.terms.scale,
                num_seqs=view.num_singles,
                num_splits=self.num_splits,
                workspace=backend.workspace,
            )
        if cut.has_chunks or backend.deterministic:
            latent_chunks(
                q_THC,
                q_THR,
                pages_BNW,
                view.table_RM,
                view.rows_S,
                view.starts_S1,
                view.lengths_S,
                cut.counts,
                sums_THC,
                layer.terms.scale,
                max_tokens=view.num_tokens,
                max_seqs=view.num_seqs,
                singles_too=backend.deterministic,
            )
        return layer.to_values(sums_THC)
