"""The KV cache: its blocks, and whether prefixes are found again."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.base.integers import ceil_div
from octavo.config.decisions.known import Known, Reason, decided
from octavo.config.facts import CheckpointFacts
from octavo.config.pooling import PoolingType
from octavo.config.root import EngineConfig

MAX_PLACES = 2**31 - 1
"""Tokens of the whole cache: a worker numbers their places in 32 bits."""


def decide_cache(config: EngineConfig, known: Known) -> EngineConfig:
    cache = config.cache
    size = cache.block_size
    if size < 1 or size & (size - 1) or size > 1024:
        raise ConfigError(f"block_size is {size}; a power of two up to 1024.", param="block_size")
    if not 0.0 < cache.memory_utilization <= 1.0:
        raise ConfigError("memory_utilization must be over 0 and at most 1.", param="memory_utilization")
    most = MAX_PLACES // size
    if cache.num_blocks is not None and not 2 <= cache.num_blocks <= most:
        raise ConfigError(f"num_blocks is {cache.num_blocks}; 2 to {most}.", param="num_blocks")
    if cache.kv_cache_memory_bytes is not None and cache.kv_cache_memory_bytes < 1:
        raise ConfigError(
            f"kv_cache_memory_bytes is {cache.kv_cache_memory_bytes}; over 0.", param="kv_cache_memory_bytes"
        )
    if cache.kv_cache_memory_bytes is not None and cache.num_blocks is not None:
        raise ConfigError(
            "num_blocks and kv_cache_memory_bytes both say how large the cache is. Give one of them.",
            param="kv_cache_memory_bytes",
        )
    config = _prefixes(config, known)
    max_len, max_seqs = config.model.max_model_len, config.schedule.max_num_seqs
    assert max_len is not None and max_seqs is not None, "both are resolved before the cache"
    useful = max_seqs * ceil_div(max_len, size)
    known.reasons.append(Reason("useful_blocks", useful, "max_num_seqs requests of max_model_len tokens"))
    return config


def _prefixes(config: EngineConfig, known: Known) -> EngineConfig:
    why_not = _why_no_prefixes(config, known.checkpoint)
    wish = config.cache.enable_prefix_caching
    if wish is None and why_not is not None:
        return decided(config, "cache", known, enable_prefix_caching=(False, why_not))
    if wish is None:
        return decided(config, "cache", known, enable_prefix_caching=(True, "what was computed is not again"))
    if wish and why_not is not None:
        raise ConfigError(
            f"enable_prefix_caching is on, but {why_not}. Leave it out.", param="enable_prefix_caching"
        )
    return config


def _why_no_prefixes(config: EngineConfig, checkpoint: CheckpointFacts) -> str | None:
    """Why nothing of one request can serve another; None if it can."""
    facts = checkpoint.pooling
    if checkpoint.state_bytes > 0:
        return "the model keeps recurrent state, which the blocks of a prefix do not hold"
    if config.model.runner != "pooling" or facts is None:
        return None
    if facts.is_encoder:
        return "an encoder keeps nothing of a text"
    if facts.pooling is PoolingType.MEAN:
        return "a mean needs the hidden states of all tokens, and the cache keeps none"
    return None
