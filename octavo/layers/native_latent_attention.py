"""Multi-head latent attention in native kernels: absorbed, so that all heads attend over one key head.

A token keeps its row twice, as a key and as a value, in pages like any other model's: twice the memory of the
form for GPUs (layers/latent_attention.py), and a token's numbers depend on no other token in any bit.

T tokens, H heads, C width of a latent, R rotated width, W = R + C, N width of a head's other columns, V width
of values, I and O a product's input and output.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from octavo.attention.contract import Attend, AttentionLayer
from octavo.attention.latents import LatentShape
from octavo.layers.factor import Factor
from octavo.layers.latent_projections import LatentProjections
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import PackedTarget, Taken, WeightSlot
from octavo.ops.cpu.engine import PLAIN_KINDS, PackedMatrix, linear_struct
from octavo.ops.cpu.structs import LinearStruct
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.stored import StoredMatrix


class NativeLatentAttention(LatentProjections):
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
        assert placement.native is not None, "whoever makes it has asked"
        self._native, self._placement = placement.native, placement
        self._absorb: list[PackedMatrix] = []
        """By head, [C, N]: from queries to what meets latents."""
        self._to_value: list[PackedMatrix] = []
        """By head, [V, C]."""
        self.layer = AttentionLayer(
            index=index,
            num_heads=num_heads,
            num_kv_heads=1,
            head_dim=shape.row,
            terms=AttentionTerms(scale=scale),
            rotation_PD=rotation_PR,
            q_norm_D=None,
            k_norm_D=None,
            norm_epsilon=0.0,
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
        shape, heads, num_tokens = self.shape, self.num_heads, len(qkv_TO)
        q_TO, row_TW = qkv_TO.tensor_split((heads * shape.query,), -1)
        q_THD = q_TO.reshape(num_tokens, heads, shape.query)
        absorbed_THC = self._by_head(self._linears[0], q_THD[..., : shape.nope])
        latent_TC = self.latent_norm.forward(row_TW[:, : shape.latent].contiguous())
        # Rotated columns come first, where the kernels turn them.
        q_THW = torch.cat((q_THD[..., shape.nope :], absorbed_THC), -1)
        key_TW = torch.cat((row_TW[:, shape.latent :], latent_TC), -1)
        sums_TI = attend(self.layer, torch.cat((q_THW.flatten(1), key_TW, key_TW), -1))
        sums_THC = sums_TI.view(num_tokens, heads, -1)[..., shape.rotated :]
        values_THV = self._by_head(self._linears[1], sums_THC)
        return self.out.onto_stream(stream, values_THV.flatten(1), post_norm)

    def _by_head(self, linears: list[LinearStruct], x_THI: torch.Tensor) -> torch.Tensor:
        """[T, H, O]"""
        num_tokens, heads, _ = x_THI.shape
        x_PI = x_THI.transpose(0, 1).flatten(0, 1).contiguous()
        y_PO = self._native.grouped(linears, [num_tokens * (head + 1) for head in range(heads)], x_PI)
        return y_PO.view(heads, num_tokens, -1).transpose(0, 1)

    @cached_property
    def _linears(self) -> tuple[list[LinearStruct], list[LinearStruct]]:
        """Made once the weights are there."""
        absorb, to_value = (
            [linear_struct([matrix], None) for matrix in matrices]
            for matrices in (self._absorb, self._to_value)
        )
        return absorb, to_value

    def up_slot(self, name: str) -> WeightSlot:
        """[H * (N + V), C]: what makes keys and values from a latent."""
        shape = self.shape
        rows = shape.nope + shape.value

        def take(stored: StoredMatrix) -> Taken:
            by_head = stored.data.reshape(self.num_heads, rows, -1)
            keys = [self._native.pack(_turned(stored.kind, data[: shape.nope])) for data in by_head]
            values = [
                self._native.pack(
                    StoredMatrix(kind=stored.kind, columns=stored.columns, data=data[shape.nope :])
                )
                for data in by_head
            ]
            self._absorb, self._to_value = keys, values
            return Taken(
                sum(matrix.packed.nbytes for matrix in keys + values),
                all(matrix.is_finite for matrix in keys + values),
            )

        target = torch.empty(self.num_heads * rows, shape.latent, dtype=torch.float32, device="meta")
        # Blocks of packed types cannot be turned.
        kinds = self._placement.native_kinds & frozenset(PLAIN_KINDS.values())
        packed = PackedTarget(kinds=kinds, otherwise=self._placement.weight_dtype, take=take)
        return WeightSlot(name=name, target=target, packed=packed)


def _turned(kind: str, data: np.ndarray) -> StoredMatrix:
    """The transposed matrix of plain numbers."""
    number = np.uint32 if kind == "F32" else np.uint16
    numbers = np.ascontiguousarray(np.ascontiguousarray(data).view(number).T)
    return StoredMatrix(kind=kind, columns=numbers.shape[1], data=numbers.view(np.uint8))
