"""Attention over paged KV on a GPU: our Triton kernels, and the vendor's for long prompts. Hot path.

Single tokens, chunks and long prompts each have a form of their own; a step launches those it needs. In
deterministic mode one form serves all, as its results do not depend on how tokens come together.

T tokens, O = (H + 2 K) * D for H query heads and K KV heads of width D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.attention.contract import AttentionLayer, Capability, PageLayout, Pages, StepLimits
from octavo.attention.dense_prefill import MIN_TOKENS, can_dense_prefill, dense_prefill
from octavo.attention.flash_chunks import FlashChunks, check_flash_chunks, serves_flash
from octavo.attention.heads import Heads
from octavo.attention.step_view import StepView
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.triton.paged_chunks import paged_chunks
from octavo.ops.triton.paged_decode import paged_decode
from octavo.ops.triton.paged_decode_shared import paged_decode_shared
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, decode_splits
from octavo.ops.triton.tuning import multiprocessors

MOST_CAPTURED_SPLITS = 8
CAPTURED_PROGRAMS = 4096
"""Programs of a captured step with chunks that may find nothing to do: about 3 microseconds' worth."""


class TritonAttention:
    """The backend for CUDA devices."""

    capabilities = frozenset(Capability) - {Capability.CPU, Capability.LATENT}
    is_head_major = True
    turns_keys = False

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None:
        self.layout = layout
        self.heads = Heads(layout.device)
        self.deterministic = limits.deterministic
        self.num_sms = multiprocessors(layout.device)
        self.long_prompt = _long_prompt(layout, limits)
        self.uses_flash = limits.chunk_attention == "flash-attn"
        if self.uses_flash:
            check_flash_chunks(layout)
        self.workspace = DecodeWorkspace.allocate(
            max_seqs=limits.max_seqs,
            num_heads=limits.num_heads,
            num_kv_heads=layout.num_kv_heads,
            head_dim=layout.head_dim,
            num_sms=self.num_sms,
            device=layout.device,
            with_shared=layout.window is None,
            least_slots=CAPTURED_PROGRAMS,
        )

    def plan(self, view: StepView) -> TritonPlan:
        return TritonPlan(
            backend=self,
            view=view,
            num_splits=self._num_splits(view),
            has_chunks=self._has_chunks(view),
            # A window may hide shared blocks from some of the sequences.
            shares_prefix=view.shares_prefix and self.layout.window is None,
            long_prompts=self._long_prompts(view),
            flash=self._flash(view),
        )

    def _flash(self, view: StepView) -> FlashChunks | None:
        """Captured steps keep to our own kernel, which takes all its numbers from the device."""
        if not self.uses_flash or view.host is None or not self._has_chunks(view):
            return None
        return FlashChunks(view, view.host, self.layout.block_size)

    def _num_splits(self, view: StepView) -> int:
        num_kv_heads = self.layout.num_kv_heads
        most = decode_splits(max(view.num_singles, 1), num_kv_heads, self.num_sms)
        if view.host is not None or not view.has_chunks:
            return most
        # Captured with chunks: there may be few single tokens, and their sequences may be long.
        spare = CAPTURED_PROGRAMS // (max(view.num_singles, 1) * num_kv_heads)
        return max(most, min(spare, MOST_CAPTURED_SPLITS))

    def _has_chunks(self, view: StepView) -> bool:
        return view.has_chunks if view.host is None else view.host.num_paged > view.num_singles

    def _long_prompts(self, view: StepView) -> list[tuple[int, int]]:
        """First and last token + 1 of each."""
        if view.host is None:
            return []
        starts = view.host.query_starts
        return [(starts[i], starts[i + 1]) for i in range(view.host.num_paged, view.num_seqs)]


def _long_prompt(layout: PageLayout, limits: StepLimits) -> int | None:
    terms = AttentionTerms(scale=1.0, window=layout.window)
    is_served = can_dense_prefill(
        layout.device, layout.dtype, layout.head_dim, terms, is_deterministic=limits.deterministic
    )
    return MIN_TOKENS if is_served and layout.has_plain_softmax else None


@dataclass(frozen=True, kw_only=True)
class TritonPlan:
    """What to launch for each layer."""

    backend: TritonAttention
    view: StepView
    num_splits: int
    has_chunks: bool
    shares_prefix: bool
    long_prompts: list[tuple[int, int]]
    flash: FlashChunks | None

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        q_THD, k_TKD, v_TKD = self.backend.heads.prepare(layer, qkv_TO, self.view, pages)
        if self.long_prompts == [(0, self.view.num_tokens)]:
            # Nothing else in this step: the result needs no copying.
            return dense_prefill(q_THD, k_TKD, v_TKD, layer.terms.scale).flatten(1)
        out_THD = torch.empty(q_THD.shape, dtype=q_THD.dtype, device=q_THD.device)
        if self.backend.deterministic:
            self._run_chunks(layer, q_THD, pages, out_THD)
            return out_THD.flatten(1)
        if self.view.num_singles > 0:
            self._run_singles(layer, q_THD, pages, out_THD)
        if self.has_chunks:
            self._run_chunks(layer, q_THD, pages, out_THD)
        for start, end in self.long_prompts:
            part = slice(start, end)
            out_THD[part] = dense_prefill(q_THD[part], k_TKD[part], v_TKD[part], layer.terms.scale)
        return out_THD.flatten(1)

    def _run_singles(
        self, layer: AttentionLayer, q_THD: torch.Tensor, pages: Pages, out_THD: torch.Tensor
    ) -> None:
        view = self.view
        decode = paged_decode_shared if self.shares_prefix else paged_decode
        decode(
            q_THD,
            pages.keys_BKND,
            pages.values_BKND,
            view.table_RM,
            view.rows_S,
            view.lengths_S,
            view.counts,
            out_THD,
            layer.terms,
            num_seqs=view.num_singles,
            num_splits=self.num_splits,
            workspace=self.backend.workspace,
        )

    def _run_chunks(
        self, layer: AttentionLayer, q_THD: torch.Tensor, pages: Pages, out_THD: torch.Tensor
    ) -> None:
        view = self.view
        if self.flash is not None and serves_flash(layer):
            self.flash.run(layer, q_THD, pages, out_THD)
            return
        paged_chunks(
            q_THD,
            pages.keys_BKND,
            pages.values_BKND,
            view.table_RM,
            view.rows_S,
            view.starts_S1,
            view.lengths_S,
            view.counts,
            out_THD,
            layer.terms,
            max_tokens=view.num_tokens,
            max_seqs=view.num_seqs,
            singles_too=self.backend.deterministic,
        )
