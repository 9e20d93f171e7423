"""Attention of whole prompts from their queries, keys and values as they were just computed, without pages.

A long prompt without a past needs nothing from the KV cache, and torch's own attention computes it at
cuDNN's rate: on an H100 597 TFLOP/s for causal prefill of 8192 tokens, 32 heads of 128 (torch's flash
attention 337). Grouped heads and the strides of a fused projection go to cuDNN as they are.

cuDNN builds a plan (tens of milliseconds) for every shape that it meets, so prompts run as their next
multiple of `BUCKET`. A causal query never sees the padding behind it, but 0 * NaN is NaN: padding is zero.

T tokens, H query heads, K KV heads, D head width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from octavo.ops.paged_plain import AttentionTerms

MIN_TOKENS = 3072
"""From this length on it is faster than paged chunks (see benchmarks/gpu/kernels/paged_chunks.py)."""

BUCKET = 512
"""Lengths are rounded up to a multiple of this. Also of cuDNN's 128, below which it has been wrong."""

_BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def can_dense_prefill(
    device: torch.device, dtype: torch.dtype, head_dim: int, terms: AttentionTerms, *, is_deterministic: bool
) -> bool:
    """Whether `dense_prefill` is right and fast for such a layer.

    A deterministic engine must not use it: a token's result would depend on its prompt being whole.
    """
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and head_dim <= 128
        and head_dim % 8 == 0
        and terms.window is None
        and terms.has_plain_softmax
        and not is_deterministic
    )


def dense_prefill(
    q_THD: torch.Tensor, k_TKD: torch.Tensor, v_TKD: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention [T, H, D] of a sequence computed from its first token on.

    Tensors may be slices of larger ones, with every head in one piece.
    """
    with _fastest_first():
        out_1HTD = scaled_dot_product_attention(
            _whole_buckets(q_THD),
            _whole_buckets(k_TKD),
            _whole_buckets(v_TKD),
            is_causal=True,
            scale=scale,
            enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
        )
    return out_1HTD[0, :, : len(q_THD)].transpose(0, 1)


def _whole_buckets(x_THD: torch.Tensor) -> torch.Tensor:
    """[1, H, T, D] with T rounded up: a view where T is whole already."""
    missing = -x_THD.shape[0] % BUCKET
    if missing:
        x_THD = pad(x_THD, (0, 0, 0, 0, 0, missing))
    return x_THD.transpose(0, 1)[None]


def _fastest_first() -> AbstractContextManager[None]:
    """cuDNN where it can, then whatever torch has (on a CPU that has no cuDNN, its own)."""
    return sdpa_kernel(_BACKENDS, set_priority=True)
