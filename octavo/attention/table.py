"""Attention backends by name, best first."""

from __future__ import annotations

from octavo.attention.contract import AttentionBackend
from octavo.base.table import LazyTable

BACKENDS: LazyTable[type[AttentionBackend]] = LazyTable(
    "attention backend",
    {
        "native": "octavo.attention.backends.native:NativeAttention",
        "cpu": "octavo.attention.backends.cpu:CpuAttention",
        "cpu-latent": "octavo.attention.backends.cpu_latent:CpuLatentAttention",
        "triton": "octavo.attention.backends.triton:TritonAttention",
        "triton-latent": "octavo.attention.backends.triton_latent:TritonLatentAttention",
    },
)
