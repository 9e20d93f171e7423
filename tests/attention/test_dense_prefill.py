"""Whole prompts without pages: the logic, on torch's attention for the CPU."""

from __future__ import annotations

import math

import pytest
import torch

from octavo.attention import dense_prefill as module
from octavo.attention.dense_prefill import BUCKET, can_dense_prefill, dense_prefill
from octavo.ops.paged_plain import AttentionTerms, paged_attention

HEAD_DIM = 8


def _expected(
    q_THD: torch.Tensor, k_TKD: torch.Tensor, v_TKD: torch.Tensor, span: tuple[int, int], scale: float
) -> torch.Tensor:
    """Plain paged attention where the span is a single block."""
    start, end = span
    pages = [x_TKD[start:end].transpose(0, 1)[None] for x_TKD in (k_TKD, v_TKD)]
    table_SM = torch.zeros(1, 1, dtype=torch.int32)
    length = end - start
    terms = AttentionTerms(scale=scale)
    return paged_attention(q_THD[start:end], *pages, table_SM, [0, length], [length], terms)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 2), (3, 3), (2, 1)])
def test_equals_plain_attention_within_each_span(num_heads: int, num_kv_heads: int) -> None:
    """Spans of whole and of broken buckets; NaN in every token around them."""
    spans = [(3, 3 + BUCKET), (3 + BUCKET, 10 + BUCKET), (20 + BUCKET, 60 + 2 * BUCKET)]
    num_tokens = 70 + 2 * BUCKET
    fused = torch.randn(
        num_tokens, num_heads + 2 * num_kv_heads, HEAD_DIM, generator=torch.Generator().manual_seed(1)
    )
    is_inside_T = torch.zeros(num_tokens, dtype=torch.bool)
    for start, end in spans:
        is_inside_T[start:end] = True
    fused[~is_inside_T] = math.nan
    q_THD, k_TKD, v_TKD = fused.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    for start, end in spans:
        expected = _expected(q_THD, k_TKD, v_TKD, (start, end), 0.3)
        found = dense_prefill(q_THD[start:end], k_TKD[start:end], v_TKD[start:end], 0.3)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [BUCKET, BUCKET + 1, 2 * BUCKET - 1])
def test_torch_meets_whole_buckets_only(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """A plan per bucket, padding of zeros, and no copy where nothing is missing."""
    seen: list[torch.Tensor] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
        seen.extend((q, k, v))
        return torch.zeros_like(q)

    monkeypatch.setattr(module, "scaled_dot_product_attention", attend)
    x_THD = torch.ones(length, 2, HEAD_DIM)
    assert len(dense_prefill(x_THD, x_THD, x_THD, 1.0)) == length
    for x_1HTD in seen:
        assert x_1HTD.shape[2] % BUCKET == 0
        assert (x_1HTD[:, :, length:] == 0).all()
        assert (x_1HTD.data_ptr() == x_THD.data_ptr()) == (length % BUCKET == 0)


def test_says_where_it_can_serve() -> None:
    cuda, plain = torch.device("cuda"), AttentionTerms(scale=1.0)

    def can(
        device: torch.device = cuda,
        dtype: torch.dtype = torch.bfloat16,
        head_dim: int = 128,
        terms: AttentionTerms = plain,
        is_deterministic: bool = False,
    ) -> bool:
        return can_dense_prefill(device, dtype, head_dim, terms, is_deterministic=is_deterministic)

    assert can()
    assert can(dtype=torch.float16, head_dim=80)
    assert not can(device=torch.device("cpu"))
    assert not can(dtype=torch.float32)
    assert not can(head_dim=256)
    assert not can(head_dim=100)
    assert not can(terms=AttentionTerms(scale=1.0, window=4096))
    assert not can(terms=AttentionTerms(scale=1.0, soft_cap=50.0))
    assert not can(terms=AttentionTerms(scale=1.0, sinks_H=torch.zeros(4)))
    assert not can(terms=AttentionTerms(scale=1.0, slopes_H=torch.zeros(4)))
    assert not can(is_deterministic=True)
