"""Attention of chunks over paged KV by flash-attn-4, an optional package (extra `cuda`). Eager steps only.

On an H100, 16 chunks of 128 tokens at context 2048 with 32 heads of 128: 145 microseconds against 199 of our
own kernel. It compiles itself for each kind of layer, some seconds in every process, so it is used only
where the user asks for it.

T tokens, S sequences, H query heads, D head width, M blocks per row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from octavo.attention.contract import AttentionLayer, PageLayout, Pages
from octavo.attention.step_view import HostView, StepView
from octavo.base.errors import ConfigError
from octavo.base.integers import ceil_div

OLDEST = (9, 0)
"""Compute capability. On older GPUs the package takes no pages of this size."""


def check_flash_chunks(layout: PageLayout) -> None:
    """Raise ConfigError, with what would help, unless flash-attn-4 can serve such layers."""
    param = "chunk_attention"
    try:
        _kernel()
    except ImportError as error:
        raise ConfigError(
            f"chunk_attention is flash-attn, which cannot be imported: {error}. Install octavo[cuda], or "
            "leave chunk_attention out.",
            param=param,
        ) from error
    if torch.cuda.get_device_capability(layout.device) < OLDEST:
        raise ConfigError(
            "chunk_attention is flash-attn, which needs a Hopper GPU or a newer one. Leave it out.",
            param=param,
        )
    if layout.dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(
            f"chunk_attention is flash-attn, which computes in 16 bits, and the model runs in "
            f"{layout.dtype}. Leave it out, or set dtype to bfloat16.",
            param=param,
        )


class FlashChunks:
    """The chunks of one step. Good for every layer of its group."""

    def __init__(self, view: StepView, host: HostView, block_size: int) -> None:
        first, last = view.num_singles, host.num_paged
        begin, end = host.query_starts[first], host.query_starts[last]
        lengths = host.lengths[first:last]
        counts = [host.query_starts[i + 1] - host.query_starts[i] for i in range(first, last)]
        self._tokens = slice(begin, end)
        self._starts_S1 = view.starts_S1[first : last + 1] - begin
        self._lengths_S = view.lengths_S[first:last]
        self._most_queries, self._longest = max(counts), max(lengths)
        blocks = ceil_div(self._longest, block_size)
        self._table_SM = view.table_RM[:, :blocks].index_select(0, view.rows_S[first:last])

    def run(self, layer: AttentionLayer, q_THD: torch.Tensor, pages: Pages, out_THD: torch.Tensor) -> None:
        """Write the chunks' rows of `out_THD`."""
        terms = layer.terms
        found = _kernel()(
            q_THD[self._tokens],
            # It wants [block, token in block, KV head, D]; strides are free.
            pages.keys_BKND.transpose(1, 2),
            pages.values_BKND.transpose(1, 2),
            cu_seqlens_q=self._starts_S1,
            seqused_k=self._lengths_S,
            page_table=self._table_SM,
            max_seqlen_q=self._most_queries,
            max_seqlen_k=self._longest,
            softmax_scale=terms.scale,
            causal=True,
        )
        out_THD[self._tokens] = found[0] if isinstance(found, tuple) else found


def serves_flash(layer: AttentionLayer) -> bool:
    """Windows, soft caps, sinks and linear biases stay with our own kernel."""
    return layer.terms.window is None and layer.terms.has_plain_softmax and layer.head_dim <= 128


@cache
def _kernel() -> Callable[..., Any]:
    from flash_attn.cute import flash_attn_varlen_func

    return flash_attn_varlen_func  # type: ignore[no-any-return]
