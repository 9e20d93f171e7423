"""Needs, capabilities, and the difference as the error."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from octavo.attention.backends.cpu import CpuAttention
from octavo.attention.choose import attention_needs, choose_backend
from octavo.attention.contract import AttentionLayer, Capability
from octavo.attention.flash_chunks import serves_flash
from octavo.base.errors import ConfigError
from octavo.messages.kv import KVKind, KVSpec
from octavo.ops.paged_plain import AttentionTerms


def test_needs_of_a_model() -> None:
    full = KVSpec(kind=KVKind.FULL, num_kv_heads=2, head_dim=8, dtype_bytes=4)
    sliding = KVSpec(kind=KVKind.SLIDING_WINDOW, num_kv_heads=2, head_dim=8, dtype_bytes=4, window=9)
    cpu = torch.device("cpu")
    assert attention_needs([full], 2, torch.float32, cpu) == {"full", "float32", "cpu"}
    assert attention_needs([full, sliding], 6, torch.bfloat16, torch.device("cuda")) == {
        "full",
        "sliding_window",
        "grouped_heads",
        "bfloat16",
        "cuda",
    }


def test_the_first_that_can() -> None:
    needs = frozenset({Capability.SLIDING_WINDOW, Capability.FLOAT32, Capability.CPU})
    assert choose_backend(needs) is CpuAttention


def test_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuAttention, "capabilities", frozenset({Capability.FULL, Capability.CPU}))
    needs = frozenset({Capability.FULL, Capability.SLIDING_WINDOW, Capability.CPU, Capability.FLOAT16})
    with pytest.raises(ConfigError, match="cpu lacks float16, sliding_window"):
        choose_backend(needs)


def test_layers_with_more_than_a_plain_softmax_stay_with_our_kernels() -> None:
    def serves(**terms: Any) -> bool:
        layer = AttentionLayer(
            index=0,
            num_heads=4,
            num_kv_heads=4,
            head_dim=64,
            terms=AttentionTerms(scale=0.125, **terms),
            rotation_PD=None,
            q_norm_D=None,
            k_norm_D=None,
            norm_epsilon=0.0,
        )
        return serves_flash(layer)

    assert serves()
    assert not serves(window=9)
    assert not serves(soft_cap=30.0)
    assert not serves(sinks_H=torch.zeros(4))
    assert not serves(slopes_H=torch.zeros(4))
    spec = KVSpec(kind=KVKind.FULL, num_kv_heads=4, head_dim=64, dtype_bytes=4, has_plain_softmax=False)
    assert Capability.SCORE_TERMS in attention_needs([spec], 4, torch.float32, torch.device("cpu"))
