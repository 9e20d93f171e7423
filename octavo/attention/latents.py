"""Latent attention: one row per token serves all heads. Two forms of the same sum, and when each pays.

The checkpoint makes a head's key and value from a token's latent: k = (K c, r) with the rotated part r that
all heads share, v = V c. So q . k = (K^T q) . c + q_r . r, and the weighted sum of values is V applied to the
weighted sum of latents (DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1).

- absorbed: K goes into the queries, V comes after the sum. Pages are read as they are, one KV head for all.
- expanded: keys and values of every head are made, then attended as usual.

Operations per head, for T queries over L keys with N + R wide keys, V wide values and C wide latents:
absorbed 2 C (N + V) T, and 2 (2 C + R) for each query and key; expanded 2 C (N + V) L, and 2 (N + R + V) for
each query and key. With DeepSeek's 128 + 64, 128 and 512 that is 262144 a token either way, and 2176 against
640 for each pair: a single token over a long past is absorbed, a prompt without a past is expanded.

T tokens, L keys, H heads, C width of the latent, R rotated width, N width of a head's other columns,
V width of values, W = C + R, D = N + R.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from octavo.attention.contract import AttentionLayer, Pages
from octavo.attention.step_view import StepView
from octavo.ops.latents import prepare_latents


@dataclass(frozen=True, kw_only=True)
class LatentShape:
    """Widths."""

    latent: int
    rotated: int
    nope: int
    value: int

    @property
    def row(self) -> int:
        """Numbers that a token keeps."""
        return self.latent + self.rotated

    @property
    def query(self) -> int:
        """Of one head."""
        return self.nope + self.rotated

    @property
    def work_per_head(self) -> int:
        """Numbers of a token while it is absorbed: its query and its sum."""
        return 2 * self.latent

    @property
    def expanded_per_head(self) -> int:
        """Numbers of a token whose key and value are made, padded values included."""
        return self.nope + self.value + self.query + max(self.query, self.value)

    def expanding_pays(self, num_queries: int, num_keys: int) -> bool:
        """Whether the last `num_queries` of `num_keys` tokens take fewer operations expanded."""
        pairs = num_queries * num_keys - num_queries * (num_queries - 1) // 2
        saved = pairs * (2 * self.latent + self.rotated - self.query - self.value)
        return saved > (num_keys - num_queries) * self.latent * (self.nope + self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentLayer(AttentionLayer):
    """A layer of a latent group: its projections are [T, H * D + W], queries first.

    num_kv_heads is 1, head_dim the width of a query, k_norm_D the norm of the latent.
    """

    shape: LatentShape
    up_HUC: torch.Tensor
    """[H, N + V, C]: what makes keys and values from a latent."""
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """ops/head_product: [T, H, I] and [H, O, I] to [T, H, O]."""

    @property
    def out_width(self) -> int:
        return self.num_heads * self.shape.value

    @property
    def work_width(self) -> int:
        """The larger of both forms'."""
        return self.num_heads * max(self.shape.work_per_head, self.shape.expanded_per_head)

    def absorb(self, q_THD: torch.Tensor) -> torch.Tensor:
        """[T, H, C]: queries that meet latents; their rotated columns are not in it."""
        nope = self.shape.nope
        return self.multiply(q_THD[..., :nope], self.up_HUC[:, :nope].transpose(1, 2))

    def to_values(self, sums_THC: torch.Tensor) -> torch.Tensor:
        """[T, H, V] from sums of latents."""
        return self.multiply(sums_THC, self.up_HUC[:, self.shape.nope :])

    def expand(self, rows_LW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[L, H, D], [L, H, V]: all heads' keys and values."""
        shape = self.shape
        up_LO = torch.nn.functional.linear(rows_LW[:, : shape.latent], self.up_HUC.flatten(0, 1))
        up_LHU = up_LO.view(len(rows_LW), self.num_heads, -1)
        rotated_LHR = rows_LW[:, None, shape.latent :].expand(-1, self.num_heads, -1)
        return torch.cat((up_LHU[..., : shape.nope], rotated_LHR), -1), up_LHU[..., shape.nope :]


class Latents:
    """From a layer's projections to queries and rows that can attend: the op for one device."""

    def __init__(self, device: torch.device) -> None:
        self._prepare_latents = prepare_latents.on(device)

    def prepare(
        self, layer: AttentionLayer, qkv_TO: torch.Tensor, view: StepView, pages: Pages
    ) -> tuple[LatentLayer, torch.Tensor, torch.Tensor]:
        """The layer as what it is, [T, H, D], [T, W]: rotated and normed in place; pages are written."""
        assert isinstance(layer, LatentLayer), "latent groups have latent layers"
        assert layer.rotation_PD is not None and layer.k_norm_D is not None, "every latent layer has both"
        shape, end = layer.shape, layer.num_heads * layer.shape.query
        q_THD = qkv_TO[:, :end].view(len(qkv_TO), layer.num_heads, shape.query)
        rows_TW = qkv_TO[:, end:]
        self._prepare_latents(
            q_THD[..., shape.nope :],
            rows_TW,
            view.positions_T,
            view.slots_T,
            layer.rotation_PD,
            layer.k_norm_D,
            layer.norm_epsilon,
            pages.keys_BKND[:, 0],
        )
        return layer, q_THD, rows_TW
