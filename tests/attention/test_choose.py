"""Needs, capabilities, and the difference as the error."""

from __future__ import annotations

import pytest
import torch

from octavo.attention.backends.cpu import CpuAttention
from octavo.attention.choose import attention_needs, choose_backend
from octavo.attention.contract import Capability
from octavo.base.errors import ConfigError
from octavo.messages.kv import KVKind, KVSpec


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
