"""Multi-head latent attention: all heads attend over one row per token (DeepSeek-V2, arXiv 2405.04434).

T tokens, E width, H heads, D width of a query, W numbers kept per token, R rotated width, I and O a
product's input and output.
"""

from __future__ import annotations

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.attention.latents import LatentLayer, LatentShape
from octavo.layers.factor import Factor
from octavo.layers.latent_projections import NORM_EPSILON, LatentProjections
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.ops.head_product import head_product
from octavo.ops.paged_plain import AttentionTerms


class LatentAttention(LatentProjections):
    """`index` is this layer's number among the model's attention layers."""

    def __init__(
        self,
        index: int,
        width: int,
        num_heads: int,
        shape: LatentShape,
        *,
        query_rank: int | None,
        has_neighbour_pairs: bool,
        scale: float,
        rotation_PR: torch.Tensor,
        placement: Placement,
    ) -> None:
        super().__init__(width, num_heads, shape, query_rank, has_neighbour_pairs, placement)
        up_HUC = placement.empty(num_heads, shape.nope + shape.value, shape.latent)
        self.up_HUC = nn.Parameter(up_HUC, requires_grad=False)
        multiply = head_product.on(placement.device) if placement.deterministic else head_product.plain
        self.layer = LatentLayer(
            index=index,
            num_heads=num_heads,
            num_kv_heads=1,
            head_dim=shape.query,
            terms=AttentionTerms(scale=scale),
            rotation_PD=rotation_PR,
            q_norm_D=None,
            k_norm_D=self.latent_norm.weight_E,
            norm_epsilon=NORM_EPSILON,
            shape=shape,
            up_HUC=self.up_HUC,
            multiply=multiply,
        )

    def forward(
        self,
        stream: Residual,
        norm: RMSNorm | None,
        attend: Attend,
        post_norm: RMSNorm | Factor | None = None,
    ) -> Residual:
        """x + out(attention(norm(x)))"""
        stream, qkv_TO = self.project(stream, norm)
        return self.out.onto_stream(stream, attend(self.layer, qkv_TO), post_norm)

    def up_slot(self, name: str) -> WeightSlot:
        return WeightSlot(name=name, target=self.up_HUC.data.flatten(0, 1))
