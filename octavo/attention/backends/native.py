"""Attention over paged KV in the native kernels. Hot path: `plan` per step, `run` per layer.

Nothing is gathered: queries read keys and values where they lie. A page keeps the keys of a head turned,
tokens side by side, so that a vector holds the same number of many keys. Pages may hold less exact numbers
than the model computes in: they are rounded as they are written, and every query reads them so, the token's
own too.

T tokens, O = (H + 2 K) * D for H query heads and K KV heads of width D.
"""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass

import torch

from octavo.attention.contract import AttentionLayer, Capability, PageLayout, Pages, StepLimits
from octavo.attention.step_view import StepView
from octavo.ops.cpu.engine import NativeEngine
from octavo.ops.cpu.structs import HeadsStruct, PagesStruct, PageTablesStruct, TokensStruct

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
"""The kernels' numbers for what pages may hold."""


class NativeAttention:
    """The backend."""

    capabilities = frozenset(
        {
            Capability.FULL,
            Capability.SLIDING_WINDOW,
            Capability.SCORE_TERMS,
            Capability.GROUPED_HEADS,
            Capability.DETERMINISTIC,
            Capability.FLOAT32,
            Capability.OTHER_KV_DTYPE,
            Capability.CPU,
        }
    )
    is_head_major = True
    turns_keys = True
    long_prompt = None

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None:
        assert limits.native is not None, "chosen only where there are native kernels"
        self._native = limits.native
        self._layout = layout

    def plan(self, view: StepView) -> NativePlan:
        return NativePlan(native=self._native, view=view, layout=self._layout)


@dataclass(frozen=True, kw_only=True)
class NativePlan:
    native: NativeEngine
    view: StepView
    layout: PageLayout

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        out_TI = torch.empty(len(qkv_TO), layer.num_heads * layer.head_dim)
        self.native.attention(
            byref(heads_struct(layer)),
            byref(pages_struct(pages, self.layout)),
            byref(tokens_struct(self.view)),
            byref(page_tables_struct(self.view)),
            qkv_TO,
            out_TI,
        )
        return out_TI


def heads_struct(layer: AttentionLayer) -> HeadsStruct:
    rotation = layer.rotation_PD
    return HeadsStruct(
        num_heads=layer.num_heads,
        num_kv_heads=layer.num_kv_heads,
        head_dim=layer.head_dim,
        rotated=0 if rotation is None else rotation.shape[1],
        window=layer.terms.window or 0,
        scale=layer.terms.scale,
        soft_cap=layer.terms.soft_cap or 0.0,
        norm_epsilon=layer.norm_epsilon,
        rotation=None if rotation is None else rotation.data_ptr(),
        q_norm=None if layer.q_norm_D is None else layer.q_norm_D.data_ptr(),
        k_norm=None if layer.k_norm_D is None else layer.k_norm_D.data_ptr(),
        sinks=None if layer.terms.sinks_H is None else layer.terms.sinks_H.data_ptr(),
        slopes=None if layer.terms.slopes_H is None else layer.terms.slopes_H.data_ptr(),
        rounds_biases=layer.terms.rounds_biases,
    )


def pages_struct(pages: Pages, layout: PageLayout) -> PagesStruct:
    return PagesStruct(
        keys=pages.keys_BKND.data_ptr(),
        values=pages.values_BKND.data_ptr(),
        page=pages.keys_BKND.stride(0) * pages.keys_BKND.itemsize,
        block_size=layout.block_size,
        kind=KINDS[layout.dtype],
    )


def tokens_struct(view: StepView) -> TokensStruct:
    return TokensStruct(
        positions=view.positions_T.data_ptr(),
        starts=view.starts_S1.data_ptr(),
        rows=view.rows_S.data_ptr(),
        num_tokens=view.num_tokens,
        num_seqs=view.num_seqs,
    )


def page_tables_struct(view: StepView) -> PageTablesStruct:
    return PageTablesStruct(
        slots=view.slots_T.data_ptr(),
        tables=view.table_RM.data_ptr(),
        stride=view.table_RM.stride(0),
    )
