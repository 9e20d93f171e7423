"""Slopes of linear biases against transformers', for heads of any number."""

from __future__ import annotations

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from octavo.layers.linear_biases import bias_slopes

HEADS = [1, 2, 3, 5, 6, 7, 8, 12, 16, 25, 71, 112]


@pytest.mark.parametrize("num_heads", HEADS)
def test_blooms(num_heads: int) -> None:
    biases_HL = build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32)[:, 0]
    torch.testing.assert_close(torch.tensor(bias_slopes(num_heads)), biases_HL[:, 1])


@pytest.mark.parametrize("most", [8, 16])
@pytest.mark.parametrize("num_heads", HEADS)
def test_mpts(num_heads: int, most: int) -> None:
    biases_HL = build_mpt_alibi_tensor(num_heads, 2, alibi_bias_max=most)[:, 0]
    torch.testing.assert_close(torch.tensor(bias_slopes(num_heads, most)), -biases_HL[:, 0])
