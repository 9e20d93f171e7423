"""CacheConfig: the paged KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.option import option


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The paged KV cache: how large a block is, how many there are, whether prefixes are kept."""

    block_size: int = option(16, "Tokens per KV block (a power of two).")
    num_blocks: int | None = option(
        None, "KV blocks, instead of as many as memory allows.", aliases=("num_gpu_blocks_override",)
    )
    kv_cache_dtype: str = option(
        "auto",
        "Numbers to keep keys and values in: the model's own, or on a CPU with native kernels any of these. "
        "int8 has a scale for every key and value. Default: float16 beside packed weights, else the model's.",
        choices=("auto", "float32", "bfloat16", "float16", "int8", "float", "half", "fp32", "bf16", "fp16"),
    )
    kv_cache_memory_bytes: int | None = option(None, "Bytes of KV cache, instead of a share of free memory.")
    memory_utilization: float = option(
        0.9,
        "Share of the device's free memory the engine may fill (on a CPU, half of it goes to the cache).",
        aliases=("gpu_memory_utilization",),
    )
    enable_prefix_caching: bool | None = option(
        None,
        "Reuse KV blocks of equal prompt prefixes: yes, unless the model keeps recurrent state.",
    )
