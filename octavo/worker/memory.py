"""How much memory there is, and how it is shared between weights, a step, graphs and the KV cache.

Asked of the device where there is one, else computed: `octavo plan` uses the same arithmetic without torch,
which is therefore imported only where a GPU is asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import psutil

from octavo.base import cgroups
from octavo.base.errors import ConfigError
from octavo.config.cache import CacheConfig
from octavo.config.model import ModelConfig
from octavo.weights.footprint import DTYPE_BYTES, kept_bytes

if TYPE_CHECKING:
    import torch

    from octavo.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

CPU_SHARE = 0.5
"""On a CPU the rest of the machine lives in the same memory: half of what we may fill is left to it."""
SLACK_BYTES = 512 * 2**20
"""Never given to the cache on a GPU: libraries and the allocator take more as they first meet a shape."""
GRAPH_LAYER_BYTES = 256 * 2**10
"""What the driver keeps for the kernels of one layer in one captured graph, roughly."""


def check_weights_fit(checkpoint: Checkpoint, model: ModelConfig, device: torch.device) -> None:
    """Raise ConfigError, with the numbers and what would fit, before anything is allocated.

    `model` is resolved.
    """
    dtype, is_packed = model.dtype, bool(model.packed_weights)
    needed = kept_bytes(checkpoint, model)
    free = free_device_bytes(device)
    if needed <= free:
        return
    half = needed * 2 // DTYPE_BYTES[dtype]
    if needed <= total_device_bytes(device):
        advice = "Other programs hold the rest: stop them, or use another device."
    elif half <= free and not is_packed:
        advice = f"As bfloat16 or float16 they take {gib(half)} and fit: set dtype."
    else:
        advice = "Take a smaller model or a larger device."
    form = "packed" if is_packed else f"as {dtype}"
    raise ConfigError(
        f"The weights take {gib(needed)} {form}, but {gib(free)} of the device's "
        f"{gib(total_device_bytes(device))} are free. {advice} `octavo plan MODEL` shows what fits where.",
        param="model",
    )


def kv_cache_bytes(cache: CacheConfig, *, step_bytes: int, device: torch.device, graph_bytes: int = 0) -> int:
    """Bytes for the KV cache, asked after the weights are in place.

    `step_bytes` is what the largest step takes beside them, `graph_bytes` what is captured later. On a GPU
    a wish for more than there is shrinks to what fits, with a line in the log.
    """
    free, taken = free_device_bytes(device), step_bytes + graph_bytes
    is_cpu = device.type == "cpu"
    wish = cache.kv_cache_memory_bytes
    if wish is None:
        wish = max(0, cache_share(free, cache.memory_utilization, is_cpu=is_cpu) - taken)
    if is_cpu:
        return wish
    most = max(0, free - taken - SLACK_BYTES)
    uses = f"{gib(free)} are free, of which a step takes {gib(step_bytes)} and graphs {gib(graph_bytes)}"
    if wish > most:
        logger.warning("The KV cache shrinks from %s to the %s that fit: %s.", gib(wish), gib(most), uses)
        return most
    logger.info("The KV cache may take %s: %s.", gib(wish), uses)
    return wish


def check_cache_fits(num_bytes: int, device: torch.device) -> None:
    """Raise ConfigError if a cache whose blocks the user counted is larger than what is free on a GPU."""
    if device.type == "cpu":
        return  # memory there is reserved, and taken as blocks are used
    free = free_device_bytes(device)
    if num_bytes > free:
        raise ConfigError(
            f"The KV cache takes {gib(num_bytes)}, but {gib(free)} are free on the GPU. Lower num_blocks, or "
            "leave it out for as many as fit.",
            param="num_blocks",
        )


def cache_share(free: int, utilization: float, *, is_cpu: bool) -> int:
    """What a step, graphs and the cache may fill together once the weights are there."""
    return int(free * utilization * (CPU_SHARE if is_cpu else 1.0))


def estimated_step_bytes(
    *, num_tokens: int, num_seqs: int, hidden_size: int, vocab_size: int, dtype_bytes: int
) -> int:
    """Upper estimate of what a step needs beside weights and cache.

    A decoder layer holds about 16 widths per token at once (queries, keys, values, both halves of the
    MLP, residuals), sampling about 4 arrays of logits in float32.
    """
    return num_tokens * hidden_size * 16 * dtype_bytes + num_seqs * vocab_size * 4 * 4


def estimated_graph_bytes(
    *, num_graphs: int, num_layers: int, largest_tokens: int, hidden_size: int, dtype_bytes: int
) -> int:
    """What captured graphs keep: their kernels, and one pool that holds the largest step's tensors."""
    pool = largest_tokens * hidden_size * 16 * dtype_bytes
    return num_graphs * num_layers * GRAPH_LAYER_BYTES + (pool if num_graphs else 0)


def free_device_bytes(device: torch.device) -> int:
    """Memory that this process can still get there; what its allocator holds unused is given back first."""
    if device.type == "cpu":
        return available_bytes()
    import torch

    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def total_device_bytes(device: torch.device) -> int:
    """All memory of the device."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().total)
    import torch

    _, total = torch.cuda.mem_get_info(device)
    return int(total)


def available_bytes() -> int:
    """Host memory that this process can still get: the machine's, or its container's or service's."""
    return min(int(psutil.virtual_memory().available), cgroups.free_memory())


def gib(num_bytes: int) -> str:
    """1610612736 -> '1.5 GiB'."""
    return f"{num_bytes / 2**30:.1f} GiB"
