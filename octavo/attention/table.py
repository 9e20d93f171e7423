"""Attention backends by name, best first."""

from __future__ import annotations

from octavo.attention.contract import AttentionBackend
from octavo.base.table import LazyTable

BACKENDS: LazyTable[type[AttentionBackend]] = LazyTable(
    "attention backend",
    {
        "native": "octavo.attention.backends.native:NativeAttention",
        "cpu": "octavo.attention.backends.cpu:CpuAttention",
        "triton": "octavo.attention.backends.triton:TritonAttention",
    },
)
