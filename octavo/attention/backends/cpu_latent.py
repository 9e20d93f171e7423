"""Latent attention over paged rows in plain torch. Sequences come together as in the cpu backend.

Single tokens are absorbed: all heads are queries of one key. Of chunks each takes the form with fewer
operations (attention/latents.py).

T tokens, H heads, C width of the latent, R rotated width, W = C + R, D width of queries, V of values,
B sequences of a batch, L keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from octavo.attention.backends.cpu import Batch, Chunk, CpuAttention
from octavo.attention.contract import AttentionLayer, Capability, PageLayout, Pages, StepLimits, StepPlan
from octavo.attention.latents import LatentLayer, Latents
from octavo.attention.step_view import StepView


class CpuLatentAttention(CpuAttention):
    """The backend."""

    capabilities = frozenset(Capability) - {
        Capability.CUDA,
        Capability.FULL,
        Capability.SLIDING_WINDOW,
        Capability.SCORE_TERMS,
    }

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None:
        super().__init__(layout, limits)
        self._latents = Latents(layout.device)

    def plan(self, view: StepView) -> StepPlan:
        batches, chunks = self.plan_sequences(view)
        return CpuLatentPlan(latents=self._latents, view=view, batches=batches, chunks=chunks)


@dataclass(frozen=True, kw_only=True)
class CpuLatentPlan:
    """Rows to read and masks: all tensors ready before the first layer."""

    latents: Latents
    view: StepView
    batches: list[Batch]
    chunks: list[Chunk]

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        latent, q_THD, rows_TW = self.latents.prepare(layer, qkv_TO, self.view, pages)
        out_THV = q_THD.new_empty(*q_THD.shape[:2], latent.shape.value)
        for batch in self.batches:
            part = slice(batch.start, batch.end)
            rows_BLW = _gather(pages, batch.rows[0])
            out_THV[part] = _absorbed(latent, q_THD[part, None], rows_BLW, batch.mask)[:, 0]
        for chunk in self.chunks:
            part = slice(chunk.start, chunk.end)
            rows_LW = rows_TW[part] if chunk.rows is None else _gather(pages, chunk.rows[0])[0]
            if latent.shape.expanding_pays(chunk.end - chunk.start, len(rows_LW)):
                out_THV[part] = _expanded(latent, q_THD[part], rows_LW, chunk)
            else:
                out_THV[part] = _absorbed(
                    latent, q_THD[None, part], rows_LW[None], chunk.mask, is_causal=chunk.is_causal
                )[0]
        return out_THV.flatten(1)


def _gather(pages: Pages, rows_BL: torch.Tensor) -> torch.Tensor:
    """[B, L, W]"""
    return pages.rows_RC.index_select(0, rows_BL.flatten()).view(*rows_BL.shape, -1)


def _absorbed(
    layer: LatentLayer,
    q_BTHD: torch.Tensor,
    rows_BLW: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    is_causal: bool = False,
) -> torch.Tensor:
    """[B, T, H, V]. mask: broadcast to [B, H, T, L] and added to the scores."""
    size, num_queries, num_heads = q_BTHD.shape[:3]
    q_THD = q_BTHD.flatten(0, 1)
    q_THW = torch.cat((layer.absorb(q_THD), q_THD[..., layer.shape.nope :]), -1)
    rows_B1LW = rows_BLW[:, None]
    if num_queries == 1:
        # All heads see the same keys: they ride as queries, and no key is repeated.
        q_BHTW = q_THW.view(size, 1, num_heads, -1)
    else:
        q_BHTW = q_THW.view(size, num_queries, num_heads, -1).transpose(1, 2)
    # Rows serve as values as they are: torch's fast attention wants both of one width.
    out_BHTW = scaled_dot_product_attention(
        q_BHTW,
        rows_B1LW,
        rows_B1LW,
        attn_mask=mask,
        is_causal=is_causal,
        scale=layer.terms.scale,
        enable_gqa=True,
    )
    if num_queries > 1:
        out_BHTW = out_BHTW.transpose(1, 2)
    sums_THC = out_BHTW.reshape(size * num_queries, num_heads, -1)[..., : layer.shape.latent]
    return layer.to_values(sums_THC).view(size, num_queries, num_heads, -1)


def _expanded(layer: LatentLayer, q_THD: torch.Tensor, rows_LW: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """[T, H, V]"""
    k_LHD, v_LHV = layer.expand(rows_LW)
    # As above: what is narrower gets zeros.
    missing = layer.shape.query - layer.shape.value
    q_HTX, k_HLX = (pad(x, (0, max(0, -missing))).transpose(0, 1) for x in (q_THD, k_LHD))
    v_HLX = pad(v_LHV, (0, max(0, missing))).transpose(0, 1)
    out_1HTX = scaled_dot_product_attention(
        q_HTX[None],
        k_HLX[None],
        v_HLX[None],
        attn_mask=chunk.mask,
        is_causal=chunk.is_causal,
        scale=layer.terms.scale,
    )
    return out_1HTX[0, ..., : layer.shape.value].transpose(0, 1)
