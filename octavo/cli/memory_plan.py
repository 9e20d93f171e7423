"""Where a device's memory would go for a model and a resolved config: the arithmetic, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from octavo.base.integers import ceil_div
from octavo.cli.targets import GPUS, Target
from octavo.config.model import ModelConfig
from octavo.config.root import EngineConfig
from octavo.weights.config_json import text_config
from octavo.weights.footprint import DTYPE_BYTES, kv_bytes_per_token
from octavo.weights.recurrent import recurrent_facts
from octavo.worker.graph_sizes import graph_sizes
from octavo.worker.memory import SLACK_BYTES, cache_share, estimated_graph_bytes, estimated_step_bytes

RUNTIME_BYTES = 640 * 2**20
"""CUDA's context, and the kernels and libraries that are loaded into it."""
SMALLER_SEQS, SMALLER_BUDGETS = (256, 64, 16), (2048, 512)
"""Values of max_num_seqs and max_num_batched_tokens to try, where a step has to take less."""


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by use. They add up to `memory_bytes` with what is left free."""

    target: str
    memory_bytes: int
    dtype: str
    weights_bytes: int
    step_bytes: int
    """Estimate; a GPU's worker measures it."""
    graph_bytes: int
    """Estimate."""
    runtime_bytes: int
    state_bytes: int
    """Recurrent state of max_num_seqs requests."""
    cache_bytes: int
    """0 where nothing is left for it."""
    kv_bytes_per_token: int
    block_size: int
    max_num_seqs: int

    @property
    def cache_tokens(self) -> int:
        """In whole blocks."""
        block_bytes = self.kv_bytes_per_token * self.block_size
        return self.cache_bytes // block_bytes * self.block_size if block_bytes else 0

    @property
    def largest_request(self) -> int:
        """Tokens of a request that has the cache to itself; one block holds nothing."""
        return max(0, self.cache_tokens - self.block_size)

    @property
    def needed_bytes(self) -> int:
        """Everything but the cache."""
        parts = (self.weights_bytes, self.step_bytes, self.graph_bytes, self.runtime_bytes, self.state_bytes)
        return sum(parts)

    def users(self, context: int) -> int:
        """Requests of `context` tokens that fit at once: by memory alone, if the model keeps anything."""
        if not self.kv_bytes_per_token:
            return self.max_num_seqs if self.needed_bytes <= self.memory_bytes else 0
        return self.largest_request // (ceil_div(context, self.block_size) * self.block_size)


def plan_memory(
    model_config: dict[str, Any],
    weights: Callable[[ModelConfig], int],
    config: EngineConfig,
    target: Target,
) -> MemoryPlan:
    """`config` is resolved, for the target's kind of device. weights: bytes of them, by these options."""
    is_cpu = target.kind == "cpu"
    is_native = bool(config.model.native_kernels)
    per_token = kv_bytes_per_token(model_config, config.cache.kv_cache_dtype, keeps_latents_twice=is_native)
    weights_bytes = weights(config.model)
    runtime_bytes = 0 if is_cpu else RUNTIME_BYTES
    step_bytes, graph_bytes = _step_bytes(model_config, config), 0
    if not is_cpu and not config.model.enforce_eager and per_token:
        graph_bytes = _graph_bytes(model_config, config)
    free = max(0, target.memory_bytes - weights_bytes - runtime_bytes)
    state_bytes = recurrent_facts(model_config).state_bytes * _limits(config)[1]
    taken = step_bytes + graph_bytes + state_bytes
    most = max(0, free - taken - (0 if is_cpu else SLACK_BYTES))
    cache = config.cache
    if cache.num_blocks is not None:
        wish = cache.num_blocks * cache.block_size * per_token
    elif cache.kv_cache_memory_bytes is not None:
        wish = cache.kv_cache_memory_bytes
    else:
        wish = max(0, cache_share(free, cache.memory_utilization, is_cpu=is_cpu) - taken)
    return MemoryPlan(
        target=target.name,
        memory_bytes=target.memory_bytes,
        dtype=config.model.dtype,
        weights_bytes=weights_bytes,
        step_bytes=step_bytes,
        graph_bytes=graph_bytes,
        runtime_bytes=runtime_bytes,
        state_bytes=state_bytes,
        cache_bytes=min(wish, most) if per_token else 0,
        kv_bytes_per_token=per_token,
        block_size=cache.block_size,
        max_num_seqs=_limits(config)[1],
    )


def _widths(model_config: dict[str, Any]) -> tuple[int, int, int]:
    """Hidden size, vocabulary, layers; 0 where the config does not say."""
    text = text_config(model_config)
    hidden, vocab, layers = (
        int(text.get(name) or 0) for name in ("hidden_size", "vocab_size", "num_hidden_layers")
    )
    return hidden, vocab, layers


def _step_bytes(model_config: dict[str, Any], config: EngineConfig) -> int:
    hidden, vocab, _ = _widths(model_config)
    tokens, seqs = _limits(config)
    return estimated_step_bytes(
        num_tokens=tokens,
        num_seqs=seqs,
        hidden_size=hidden,
        vocab_size=0 if config.model.runner == "pooling" else vocab,
        dtype_bytes=DTYPE_BYTES[config.model.dtype],
    )


def _graph_bytes(model_config: dict[str, Any], config: EngineConfig) -> int:
    hidden, _, layers = _widths(model_config)
    tokens, seqs = _limits(config)
    sizes = graph_sizes(seqs, tokens)
    return estimated_graph_bytes(
        num_graphs=len(sizes),
        num_layers=layers,
        largest_tokens=max(sizes),
        hidden_size=hidden,
        dtype_bytes=DTYPE_BYTES[config.model.dtype],
    )


def _limits(config: EngineConfig) -> tuple[int, int]:
    """Most tokens and requests of one step."""
    tokens, seqs = config.schedule.max_num_batched_tokens, config.schedule.max_num_seqs
    assert tokens is not None and seqs is not None, "the config is resolved"
    return tokens, seqs


def what_would_fit(
    model_config: dict[str, Any],
    weights: Callable[[ModelConfig], int],
    config: EngineConfig,
    target: Target,
    context: int,
) -> list[str]:
    """Changes after which at least one request of `context` tokens fits, and the longest that fits now."""

    def planned(changed: EngineConfig, device: Target = target) -> MemoryPlan:
        return plan_memory(model_config, weights, changed, device)

    longest = planned(config).largest_request
    advice = [f"--max-model-len {longest}: a shorter context"] if longest else []
    advice += _without_bounds(config, planned, context)
    smaller = list(_smaller(config, target))
    together = {name: value for change in smaller for name, value in change.items()}
    seen: set[str] = set()
    for change in [*smaller, together]:
        plan = planned(_changed(config, change))
        # The gentlest value of each option is enough, and all of them only where none alone is.
        if not plan.largest_request or seen.intersection(change):
            continue
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in change.items())
        if plan.users(context):
            advice.append(f"{flags}: {_requests(plan.users(context), context)}")
        elif not longest:
            advice.append(f"{flags} --max-model-len {plan.largest_request}: a shorter context")
        else:
            continue
        seen.update(change)
    return advice + _larger_gpus(config, target, planned, context)


def _without_bounds(
    config: EngineConfig, planned: Callable[[EngineConfig], MemoryPlan], context: int
) -> list[str]:
    """Where it is the wish for a small cache that leaves no room."""
    given = [
        name for name in ("num_blocks", "kv_cache_memory_bytes") if getattr(config.cache, name) is not None
    ]
    count = planned(_changed(config, dict.fromkeys(given))).users(context) if given else 0
    flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
    return [f"without {flags}: {_requests(count, context)}"] if count else []


def _smaller(config: EngineConfig, target: Target) -> Iterator[dict[str, Any]]:
    """One change of an option at a time, the gentlest first."""
    if config.model.dtype == "float32":
        yield {"dtype": "bfloat16" if target.has_bfloat16 or target.kind == "cpu" else "float16"}
    tokens, seqs = _limits(config)
    yield from ({"max_num_seqs": value} for value in SMALLER_SEQS if value < seqs)
    yield from ({"max_num_batched_tokens": value} for value in SMALLER_BUDGETS if value < tokens)


def _changed(config: EngineConfig, change: dict[str, Any]) -> EngineConfig:
    values = {**config.option_values(), **change}
    if config.cache.kv_cache_dtype == config.model.dtype:
        values["kv_cache_dtype"] = values["dtype"]
    return EngineConfig.from_options(values)


def _larger_gpus(
    config: EngineConfig, target: Target, planned: Callable[[EngineConfig, Target], MemoryPlan], context: int
) -> list[str]:
    """The two smallest GPUs of the list that would do as things are. Nothing before Ampere is advised."""
    if target.kind == "cpu":
        return []
    lines = []
    for name, gpu in GPUS.items():
        is_larger = gpu.memory_bytes > target.memory_bytes
        count = planned(config, gpu).users(context) if gpu.has_bfloat16 and is_larger else 0
        if count:
            lines.append(f"--gpu {name} ({gpu.name}): {_requests(count, context)}")
    return lines[:2]


def _requests(count: int, context: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'} of {context:,} tokens"
