"""Latent attention over paged rows on a GPU. Hot path.

Single tokens and chunks are absorbed, each by a kernel of its own; long prompts without a past are expanded
(attention/latents.py says why). In deterministic mode one form and one kernel serve all.

T tokens, H heads, C width of the latent, R rotated width, W = C + R, D width of queries, V of values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.attention.contract import AttentionLayer, Capability, PageLayout, Pages, StepLimits
from octavo.attention.dense_prefill import dense_prefill
from octavo.attention.latents import LatentLayer, Latents
from octavo.attention.step_view import StepView
from octavo.base.errors import ConfigError
from octavo.ops.triton.latent_chunks import latent_chunks
from octavo.ops.triton.latent_decode import latent_decode
from octavo.ops.triton.latent_states import head_blocks
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, decode_splits
from octavo.ops.triton.tuning import multiprocessors

LONG_PROMPT = 1024
"""From so many tokens on a prompt without a past is expanded: the operations of attention fall to 0.3."""
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

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None:
        if limits.chunk_attention != "triton":
            raise ConfigError(
                f"chunk_attention is {limits.chunk_attention!r}, which reads keys and values of at most 128 "
                f"columns; this model keeps rows of {layout.head_dim}. Leave it at 'triton'.",
                param="chunk_attention",
            )
        assert layout.value_dim is not None, "latent rows hold their values"
        is_narrow = layout.dtype in (torch.float16, torch.bfloat16)
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
        host = view.host
        num_paged_tokens = view.num_tokens
        long_prompts: list[tuple[int, int]] = []
        has_chunks = view.has_chunks
        if host is not None:
            starts = host.query_starts
            num_paged_tokens = starts[host.num_paged]
            long_prompts = [(starts[i], starts[i + 1]) for i in range(host.num_paged, view.num_seqs)]
            has_chunks = host.num_paged > view.num_singles
        return TritonLatentPlan(
            backend=self,
            view=view,
            num_splits=self._num_splits(view),
            num_paged_tokens=num_paged_tokens,
            has_chunks=has_chunks,
            long_prompts=long_prompts,
        )

    def _num_splits(self, view: StepView) -> int:
        num_pairs = max(view.num_singles, 1) * self.num_parts
        most = decode_splits(max(view.num_singles, 1), self.num_parts, self.num_sms)
        if view.host is not None or not view.has_chunks:
            return most
        # Captured with chunks: there may be few single tokens, and their sequences may be long.
        return max(most, min(CAPTURED_SLOTS // num_pairs, MOST_CAPTURED_SPLITS))


@dataclass(frozen=True, kw_only=True)
class TritonLatentPlan:
    """What to launch for each layer."""

    backend: TritonLatentAttention
    view: StepView
    num_splits: int
    num_paged_tokens: int
    has_chunks: bool
    long_prompts: list[tuple[int, int]]
    """First and last token + 1 of each."""

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        latent, q_THD, rows_TW = self.backend.latents.prepare(layer, qkv_TO, self.view, pages)
        end = self.num_paged_tokens
        if not self.long_prompts:
            return self._paged(latent, q_THD, pages).flatten(1)
        out_THV = q_THD.new_empty(*q_THD.shape[:2], latent.shape.value)
        if end > 0:
            out_THV[:end] = self._paged(latent, q_THD[:end], pages)
        for first, last in self.long_prompts:
            part = slice(first, last)
            keys_THD, values_THV = latent.expand(rows_TW[part])
            out_THV[part] = dense_prefill(q_THD[part], keys_THD, values_THV, latent.terms.scale)
        return out_THV.flatten(1)

    def _paged(self, layer: LatentLayer, q_THD: torch.Tensor, pages: Pages) -> torch.Tensor:
        """[T, H, V] of single tokens and chunks."""
        view = self.view
        q_THC, q_THR = layer.absorb(q_THD), q_THD[..., layer.shape.nope :]
        pages_BNW = pages.keys_BKND[:, 0]
        sums_THC = torch.empty_like(q_THC)
        if view.num_singles > 0 and not self.backend.deterministic:
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
                workspace=self.backend.workspace,
            )
        if self.has_chunks or self.backend.deterministic:
            latent_chunks(
                q_THC,
                q_THR,
                pages_BNW,
                view.table_RM,
                view.rows_S,
                view.starts_S1,
                view.lengths_S,
                view.counts,
                sums_THC,
                layer.terms.scale,
                max_tokens=view.num_tokens,
                max_seqs=view.num_seqs,
                singles_too=self.backend.deterministic,
            )
        return layer.to_values(sums_THC)
