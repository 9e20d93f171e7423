"""From wishes to decisions: user's options + checkpoint facts + machine facts -> complete config.

An ordered list of small pure steps. Each fills or checks some fields and gives a reason for every
value it chose; `octavo explain` prints them. A wish that cannot be met is refused, never bent.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ConfigError
from octavo.base.integers import ceil_div
from octavo.base.native import why_no_kernels
from octavo.config.facts import CPU, CheckpointFacts, DeviceFacts
from octavo.config.native_families import NATIVE, OVERFLOWING
from octavo.config.pooling import PoolingType
from octavo.config.root import EngineConfig

DTYPES = {"float": "float32", "half": "float16"}
KV_DTYPES = {**DTYPES, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MODEL_IMPLS = {"vllm": "octavo"}
CPU_SEQS, GPU_SEQS = 64, 1024
CPU_STALL_S, GPU_STALL_S = 300.0, 60.0
MIN_STALL_S = 1.0
ENCODER_SEQS, ENCODER_TOKENS = 256, 2048
"""On a CPU."""
MAX_STATE_BYTES = 8 * 2**30
"""Recurrent state of all requests together, unless max_num_seqs asks for more."""
_STATE_LIMIT = f"{MAX_STATE_BYTES // 2**30} GiB of it"


@dataclass(frozen=True)
class Reason:
    """Why an option has its value."""

    option: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Resolved:
    config: EngineConfig
    reasons: list[Reason]


def resolve(wishes: EngineConfig, checkpoint: CheckpointFacts, device: DeviceFacts) -> Resolved:
    """Fill every None and 'auto' of the model, cache and schedule groups, and what of the server's follows
    from them. Raises ConfigError."""
    known = _Known(checkpoint, _chosen_device(wishes, device), [])
    config = wishes
    steps = (
        *(_names, _runner, _model_impl, _device, _native_kernels, _packed_weights, _dtype, _lengths),
        *(_pooling, _schedule, _cache, _kv_dtype, _tenants, _batches, _supervision),
    )
    for step in steps:
        config = step(config, known)
    return Resolved(config, known.reasons)


@dataclass(frozen=True)
class _Known:
    """What every step sees, and where it notes its reasons."""

    checkpoint: CheckpointFacts
    device: DeviceFacts
    reasons: list[Reason]

    @property
    def is_encoder(self) -> bool:
        facts = self.checkpoint.pooling
        return facts is not None and facts.is_encoder


def _set(config: EngineConfig, group: str, known: _Known, **values: tuple[Any, str]) -> EngineConfig:
    known.reasons.extend(Reason(name, value, why) for name, (value, why) in values.items())
    new = dataclasses.replace(getattr(config, group), **{name: value for name, (value, _) in values.items()})
    return dataclasses.replace(config, **{group: new})


def _names(config: EngineConfig, known: _Known) -> EngineConfig:
    if config.model.trust_remote_code:
        raise ConfigError(
            "trust_remote_code is not available: Octavo never runs code from a checkpoint. Leave it off; "
            "`octavo explain MODEL` says whether the model runs without it.",
            param="trust_remote_code",
        )
    if config.model.served_model_name:
        return config
    wish = config.model.model
    if wish.startswith((".", "/", "~", "pypi:")) or wish.endswith(".gguf"):
        name, why = known.checkpoint.name, "the checkpoint's own name"
    else:
        name, why = wish, "as the model was asked for"
    return _set(config, "model", known, served_model_name=([name], why))


def _runner(config: EngineConfig, known: _Known) -> EngineConfig:
    checkpoint = known.checkpoint
    if config.model.runner == "generate" and not checkpoint.can_write:
        raise ConfigError(
            f"runner is generate, but a {checkpoint.architecture} cannot write. Leave runner out.",
            param="runner",
        )
    if config.model.runner != "auto":
        return config
    if checkpoint.pooling is None:
        return _set(config, "model", known, runner=("generate", "the model predicts tokens"))
    made = {"embed": "embed texts", "classify": "score labels"}[checkpoint.pooling.task]
    return _set(config, "model", known, runner=("pooling", f"the model was made to {made}"))


def _pooling(config: EngineConfig, known: _Known) -> EngineConfig:
    """What follows for a model that answers with numbers."""
    facts = known.checkpoint.pooling
    if config.model.runner != "pooling" or facts is None:
        return config
    known.reasons.append(Reason("task", facts.task, "what the model's files say"))
    if facts.can_embed:
        config = _set(config, "model", known, pooling_type=(str(facts.pooling), facts.why_pooling))
    if facts.is_encoder:
        whole = "every token of an encoder sees all others, so a text is computed in one step"
        config = _set(config, "schedule", known, enable_chunked_prefill=(False, whole))
    return config


def _model_impl(config: EngineConfig, known: _Known) -> EngineConfig:
    wish = config.model.model_impl
    if wish in MODEL_IMPLS:
        return _set(config, "model", known, model_impl=(MODEL_IMPLS[wish], f"what {wish} means here"))
    return config


def _chosen_device(wishes: EngineConfig, local: DeviceFacts) -> DeviceFacts:
    wish = wishes.model.device
    if wish == "cuda" and local.kind != "cuda":
        raise ConfigError(
            f"device is 'cuda', but {local.why}. Leave device out to run on the CPU, or make the GPU visible "
            "(driver, CUDA_VISIBLE_DEVICES, a torch with CUDA).",
            param="device",
        )
    if wish != "cpu":
        return local
    return dataclasses.replace(CPU, kernels=local.kernels, num_cores=local.num_cores)


def _device(config: EngineConfig, known: _Known) -> EngineConfig:
    kind = known.device.kind
    if config.model.deterministic and kind == "cpu":
        raise ConfigError(
            "deterministic is available on GPUs only, and this engine runs on the CPU. Leave it out.",
            param="deterministic",
        )
    if config.model.chunk_attention == "flash-attn" and (kind == "cpu" or config.model.deterministic):
        why = "this engine runs on the CPU" if kind == "cpu" else "deterministic needs Octavo's own kernels"
        raise ConfigError(
            f"chunk_attention is flash-attn, which is for GPUs and not for deterministic mode: {why}. "
            "Leave it out.",
            param="chunk_attention",
        )
    if config.model.device == "auto":
        return _set(config, "model", known, device=(kind, known.device.why))
    return config


PLAIN_TYPES = ("float32", "float16", "bfloat16")


def _native_kernels(config: EngineConfig, known: _Known) -> EngineConfig:
    """Whether, and with how many threads."""
    wish, threads = config.model.native_kernels, config.model.cpu_threads
    if threads is None:
        config = _set(config, "model", known, cpu_threads=(known.device.num_cores, "one per physical core"))
    elif threads < 1:
        raise ConfigError(f"cpu_threads is {threads}; at least 1.", param="cpu_threads")
    obstacle = _obstacle_to_kernels(config, known)
    if wish and obstacle is not None:
        raise ConfigError(f"native_kernels is on, but {obstacle}. Leave it out.", param="native_kernels")
    if wish is not None:
        return config
    why = obstacle or f"the {known.device.kernels} kernels: numbers do not depend on what else runs"
    return _set(config, "model", known, native_kernels=(obstacle is None, why))


def _obstacle_to_kernels(config: EngineConfig, known: _Known) -> str | None:
    if known.device.kind != "cpu":
        return "this engine runs on a GPU"
    if known.device.kernels is None:
        return why_no_kernels()
    if config.model.runner == "pooling":
        return "models that answer with numbers compute with oneDNN"
    if config.model.model_impl == "transformers":
        return "transformers' modules compute with torch"
    if known.checkpoint.architecture not in NATIVE:
        return f"a {known.checkpoint.architecture} computes with torch"
    return None


def _packed_weights(config: EngineConfig, known: _Known) -> EngineConfig:
    """Decided by what was asked for, so before dtype is settled."""
    wish = config.model.packed_weights
    obstacle = _obstacle_to_packing(config, known)
    if wish and obstacle is not None:
        raise ConfigError(f"packed_weights is on, but {obstacle}. Leave it out.", param="packed_weights")
    if wish is not None:
        return config
    if obstacle is not None:
        return _set(config, "model", known, packed_weights=(False, obstacle))
    if known.checkpoint.stored_dtype in PLAIN_TYPES:
        why = f"the checkpoint's weights are plain {known.checkpoint.stored_dtype}"
        return _set(config, "model", known, packed_weights=(False, why))
    if config.model.dtype != "auto":
        why = f"dtype {config.model.dtype} was asked for: weights are made plain, and computed with exactly"
        return _set(config, "model", known, packed_weights=(False, why))
    why = f"{known.checkpoint.stored_dtype} file; the {known.device.kernels} kernels compute with it as it is"
    return _set(config, "model", known, packed_weights=(True, why))


def _obstacle_to_packing(config: EngineConfig, known: _Known) -> str | None:
    obstacle = _obstacle_to_kernels(config, known)
    if obstacle is not None:
        return f"{obstacle}, with plain weights" if known.device.kernels is not None else obstacle
    if not config.model.native_kernels:
        return "native_kernels is off"
    if config.model.dtype not in ("auto", "float", "float32"):
        return f"packed weights compute in float32 and dtype is {config.model.dtype}"
    return None


def _dtype(config: EngineConfig, known: _Known) -> EngineConfig:
    wish = config.model.dtype
    if wish in DTYPES:
        config = _set(config, "model", known, dtype=(DTYPES[wish], f"another spelling of {wish}"))
    if (
        config.model.dtype == "bfloat16"
        and known.device.kind == "cuda"
        and not known.device.has_fast_bfloat16
    ):
        raise ConfigError(
            f"dtype is bfloat16, which the {known.device.name} does not compute. Use float16 or float32.",
            param="dtype",
        )
    if wish != "auto":
        return _narrow_on_cpu(config, known)
    if known.device.kind == "cpu":
        return _set(config, "model", known, dtype=("float32", "exact, whatever width weights are stored in"))
    stored = known.checkpoint.stored_dtype
    if known.checkpoint.architecture.startswith(OVERFLOWING):
        wide = "bfloat16" if known.device.has_fast_bfloat16 else "float32"
        return _set(config, "model", known, dtype=(wide, "this model's numbers are too large for float16"))
    if not known.device.has_fast_bfloat16:
        why = f"checkpoint is {stored}; the {known.device.name} computes no bfloat16"
        return _set(config, "model", known, dtype=("float16", why))
    if stored in ("bfloat16", "float16"):
        return _set(config, "model", known, dtype=(stored, "as stored in the checkpoint"))
    return _set(
        config, "model", known, dtype=("bfloat16", f"checkpoint is {stored}; the device computes bfloat16")
    )


def _narrow_on_cpu(config: EngineConfig, known: _Known) -> EngineConfig:
    """A reason for what a narrow dtype means to the native kernels."""
    dtype = config.model.dtype
    if config.model.native_kernels and dtype != "float32":
        why = "asked for: weights are kept in it; the kernels compute in float32, which is exacter"
        known.reasons.append(Reason("dtype", dtype, why))
    return config


def _lengths(config: EngineConfig, known: _Known) -> EngineConfig:
    limit, why = known.checkpoint.model_max_len, "what the model was made for"
    facts = known.checkpoint.pooling
    wish = config.model.max_model_len
    if wish is None:
        trained = None if facts is None else facts.max_tokens
        if config.model.runner == "pooling" and trained is not None and trained < limit:
            limit, why = trained, "max_seq_length of sentence_bert_config.json"
        return _set(config, "model", known, max_model_len=(limit, why))
    if not 1 < wish <= limit:
        raise ConfigError(f"max_model_len is {wish}; this model allows 2 to {limit}.", param="max_model_len")
    return config


def _schedule(config: EngineConfig, known: _Known) -> EngineConfig:
    is_gpu = known.device.kind == "cuda"
    if config.schedule.async_scheduling is None:
        why = (
            "the GPU never waits for the host"
            if is_gpu
            else "on a CPU scheduling and computing share the cores"
        )
        config = _set(config, "schedule", known, async_scheduling=(is_gpu, why))
    if config.schedule.max_num_seqs is None:
        seqs, why = _usual_seqs(known, is_gpu=is_gpu)
        state = known.checkpoint.state_bytes
        if seqs * state > MAX_STATE_BYTES:
            seqs = max(1, MAX_STATE_BYTES // state)
            why = f"each request has {state / 2**20:.1f} MiB of recurrent state; {_STATE_LIMIT} may be taken"
        config = _set(config, "schedule", known, max_num_seqs=(seqs, why))
    for name in ("max_num_queued_reqs", "max_num_queued_tokens", "max_predicted_ttft"):
        if not getattr(config.schedule, name) >= 0:
            raise ConfigError(f"{name} is {getattr(config.schedule, name)}; at least 0.", param=name)
    return _step_tokens(config, known)


def _usual_seqs(known: _Known, *, is_gpu: bool) -> tuple[int, str]:
    if is_gpu:
        return GPU_SEQS, "as many as graphs are captured for"
    if known.is_encoder:
        return ENCODER_SEQS, "short texts fill a step together, and an encoder keeps nothing of them"
    return CPU_SEQS, "a CPU gains little from more"


def _step_tokens(config: EngineConfig, known: _Known) -> EngineConfig:
    schedule = config.schedule
    max_len, max_seqs = config.model.max_model_len, schedule.max_num_seqs
    assert max_len is not None and max_seqs is not None, "both are resolved before the budget"
    if max_seqs < 1:
        raise ConfigError(f"max_num_seqs is {max_seqs}; at least 1.", param="max_num_seqs")
    target = schedule.itl_target_ms
    if target is not None and (not 0.0 < target < math.inf or not schedule.enable_chunked_prefill):
        raise ConfigError(
            f"itl_target_ms is {target}; it must be over 0, and needs chunked prefill, by which it is kept.",
            param="itl_target_ms",
        )
    if schedule.max_num_batched_tokens is None:
        budget, why = _usual_budget(known)
        budget = max(budget, max_seqs)
        if not schedule.enable_chunked_prefill and budget < max_len:
            budget, why = max_len, "whole prompts, as chunked prefill is off"
        return _set(config, "schedule", known, max_num_batched_tokens=(budget, why))
    budget = schedule.max_num_batched_tokens
    if budget < 1:
        raise ConfigError(f"max_num_batched_tokens is {budget}; at least 1.", param="max_num_batched_tokens")
    if not schedule.enable_chunked_prefill and budget < max_len:
        raise ConfigError(
            f"max_num_batched_tokens is {budget}, less than max_model_len {max_len}, and chunked prefill is "
            "off. Raise the budget or leave chunked prefill on.",
            param="max_num_batched_tokens",
        )
    return config


def _usual_budget(known: _Known) -> tuple[int, str]:
    if known.device.kind != "cpu":
        return 8192, "fills the device"
    if known.is_encoder:
        return ENCODER_TOKENS, "few large steps: no text waits for its next token"
    return 512, "keeps a step short on a CPU"


def _cache(config: EngineConfig, known: _Known) -> EngineConfig:
    cache = config.cache
    size = cache.block_size
    if size < 1 or size & (size - 1) or size > 1024:
        raise ConfigError(f"block_size is {size}; a power of two up to 1024.", param="block_size")
    if not 0.0 < cache.memory_utilization <= 1.0:
        raise ConfigError("memory_utilization must be over 0 and at most 1.", param="memory_utilization")
    if cache.num_blocks is not None and cache.num_blocks < 2:
        raise ConfigError(f"num_blocks is {cache.num_blocks}; at least 2.", param="num_blocks")
    config = _prefixes(config, known)
    max_len, max_seqs = config.model.max_model_len, config.schedule.max_num_seqs
    assert max_len is not None and max_seqs is not None, "both are resolved before the cache"
    useful = max_seqs * ceil_div(max_len, size)
    known.reasons.append(Reason("useful_blocks", useful, "max_num_seqs requests of max_model_len tokens"))
    return config


def _kv_dtype(config: EngineConfig, known: _Known) -> EngineConfig:
    wish = config.cache.kv_cache_dtype
    computed = "float32" if config.model.native_kernels else config.model.dtype
    if wish in KV_DTYPES:
        config = _set(config, "cache", known, kv_cache_dtype=(KV_DTYPES[wish], f"another spelling of {wish}"))
        wish = config.cache.kv_cache_dtype
    if wish == "auto":
        if config.model.packed_weights and known.checkpoint.stored_dtype not in PLAIN_TYPES:
            why = "half of float32's bytes, and rounding them changes less than rounding the weights' inputs"
            return _set(config, "cache", known, kv_cache_dtype=("float16", why))
        return _set(config, "cache", known, kv_cache_dtype=(computed, "as the model computes"))
    obstacle = _obstacle_to_other_kv(config, known)
    if wish != computed and obstacle is not None:
        raise ConfigError(
            f"kv_cache_dtype is {wish} and the model computes in {computed}, but {obstacle}. Leave it out.",
            param="kv_cache_dtype",
        )
    return config


def _obstacle_to_other_kv(config: EngineConfig, known: _Known) -> str | None:
    """Why keys and values cannot be kept in other numbers than the model computes in; None if they can."""
    if known.device.kind != "cpu":
        return "a GPU keeps keys and values in the model's dtype"
    if not config.model.native_kernels:
        return "only the native kernels read other numbers, and native_kernels is off"
    return None


def _prefixes(config: EngineConfig, known: _Known) -> EngineConfig:
    why_not = _why_no_prefixes(config, known.checkpoint)
    wish = config.cache.enable_prefix_caching
    if wish is None and why_not is not None:
        return _set(config, "cache", known, enable_prefix_caching=(False, why_not))
    if wish is None:
        return _set(config, "cache", known, enable_prefix_caching=(True, "what was computed is not again"))
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


def _tenants(config: EngineConfig, known: _Known) -> EngineConfig:
    """What follows where keys have names."""
    has_names = config.server.api_key_file is not None
    if config.schedule.scheduling_policy == "auto":
        fair = ("fair", "keys have names: nobody waits because another asks for more")
        plain = ("fcfs", "without names of keys there is nobody to be fair to")
        config = _set(config, "schedule", known, scheduling_policy=fair if has_names else plain)
    if config.server.separate_prefix_caches is not None:
        return config
    why = (
        "keys have names: how soon an answer comes would show what other tenants asked"
        if has_names
        else "keys without names are taken for one tenant's"
    )
    return _set(config, "server", known, separate_prefix_caches=(has_names, why))


def _batches(config: EngineConfig, known: _Known) -> EngineConfig:
    wish = config.server.batch_concurrency
    max_seqs = config.schedule.max_num_seqs
    assert max_seqs is not None, "max_num_seqs is resolved before what depends on it"
    if wish is None:
        share = max(1, max_seqs // 4)
        why = "a quarter of max_num_seqs: batches leave room for everybody else"
        return _set(config, "server", known, batch_concurrency=(share, why))
    if wish < 1:
        raise ConfigError(f"batch_concurrency is {wish}; at least 1.", param="batch_concurrency")
    return config


def _supervision(config: EngineConfig, known: _Known) -> EngineConfig:
    wishes = config.supervision
    if wishes.max_core_restarts < 0:
        raise ConfigError(
            f"max_core_restarts is {wishes.max_core_restarts}; at least 0.", param="max_core_restarts"
        )
    if not 0.0 < wishes.core_restart_window < float("inf"):
        raise ConfigError(
            f"core_restart_window is {wishes.core_restart_window}; a number of seconds over 0.",
            param="core_restart_window",
        )
    timeout = wishes.core_stall_timeout
    if timeout is None:
        timeout, why = (
            (GPU_STALL_S, "no step of a GPU takes so long")
            if known.device.kind == "cuda"
            else (CPU_STALL_S, "a step of a large model may take minutes on a CPU")
        )
        return _set(config, "supervision", known, core_stall_timeout=(timeout, why))
    if not timeout >= MIN_STALL_S:
        raise ConfigError(
            f"core_stall_timeout is {timeout}; at least {MIN_STALL_S:.0f} second.", param="core_stall_timeout"
        )
    return config
