"""Attention of the last tokens of a sequence over all of its keys and values, which lie at hand.

T tokens, L keys, H heads, D width of queries and keys, V width of values.
"""

from __future__ import annotations

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import pad, scaled_dot_product_attention


def dense_chunk(q_THD: torch.Tensor, k_LHD: torch.Tensor, v_LHV: torch.Tensor, scale: float) -> torch.Tensor:
    """[T, H, V]: token i sees the first L - T + 1 + i keys. Every head has keys of its own.

    torch's fast attention wants keys and values of one width: narrower values get zeros.
    """
    width = v_LHV.shape[-1]
    v_LHD = pad(v_LHV, (0, max(0, q_THD.shape[-1] - width)))
    out_1HTD = scaled_dot_product_attention(
        q_THD.transpose(0, 1)[None],
        k_LHD.transpose(0, 1)[None],
        v_LHD.transpose(0, 1)[None],
        attn_mask=causal_lower_right(len(q_THD), len(k_LHD)),
        scale=scale,
    )
    return out_1HTD[0, ..., :width].transpose(0, 1)
