"""How much memory there is, and how much of it the KV cache may take."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig

CPU_SHARE = 0.5
"""On a CPU the rest of the machine lives in the same memory: half of what we may fill is left to it."""

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Limit and use of a container, in the new and the old hierarchy."""


def kv_cache_bytes(
    cache: CacheConfig, schedule: ScheduleConfig, *, hidden_size: int, vocab_size: int, device: torch.device
) -> int:
    """Bytes for the KV cache, asked after the weights are in place."""
    if cache.kv_cache_memory_bytes is not None:
        return cache.kv_cache_memory_bytes
    if device.type == "cpu":
        fillable = int(available_bytes() * cache.memory_utilization * CPU_SHARE)
    else:
        free, _ = torch.cuda.mem_get_info(device)
        fillable = int(free * cache.memory_utilization)
    return max(0, fillable - step_bytes(schedule, hidden_size=hidden_size, vocab_size=vocab_size))


def step_bytes(schedule: ScheduleConfig, *, hidden_size: int, vocab_size: int) -> int:
    """Upper estimate of what a step needs beside weights and cache, in float32.

    A decoder layer holds about 16 widths per token at once (queries, keys, values, both halves of the
    MLP, residuals), sampling about 4 arrays of logits.
    """
    assert schedule.max_num_batched_tokens is not None, "the config is resolved before the worker starts"
    activations = schedule.max_num_batched_tokens * hidden_size * 16
    logits = schedule.max_num_seqs * vocab_size * 4
    return 4 * (activations + logits)


def available_bytes() -> int:
    """Memory that this process can still get: the machine's, or its container's if that is less."""
    available = int(psutil.virtual_memory().available)
    for limit_file, used_file in _LIMITS:
        limit, used = _read(limit_file), _read(used_file)
        if limit is not None and used is not None:
            available = min(available, max(0, limit - used))
    return available


def _read(name: str) -> int | None:
    try:
        text = (_CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
