"""In which numbers weights are kept, the model computes, and keys and values are kept."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.config.decisions.device import obstacle_to_kernels
from octavo.config.decisions.known import Known, Reason, decided
from octavo.config.native_families import OVERFLOWING
from octavo.config.root import EngineConfig

DTYPES = {"float": "float32", "half": "float16"}
KV_DTYPES = {**DTYPES, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PLAIN_TYPES = ("float32", "float16", "bfloat16")


def decide_packing(config: EngineConfig, known: Known) -> EngineConfig:
    """Decided by what was asked for, so before dtype is settled."""
    wish = config.model.packed_weights
    obstacle = _obstacle_to_packing(config, known)
    if wish and obstacle is not None:
        raise ConfigError(f"packed_weights is on, but {obstacle}. Leave it out.", param="packed_weights")
    if wish is not None:
        return config
    if obstacle is not None:
        return decided(config, "model", known, packed_weights=(False, obstacle))
    if known.checkpoint.stored_dtype in PLAIN_TYPES:
        why = f"the checkpoint's weights are plain {known.checkpoint.stored_dtype}"
        return decided(config, "model", known, packed_weights=(False, why))
    if config.model.dtype != "auto":
        why = f"dtype {config.model.dtype} was asked for: weights are made plain, and computed with exactly"
        return decided(config, "model", known, packed_weights=(False, why))
    why = f"{known.checkpoint.stored_dtype} file; the {known.device.kernels} kernels compute with it packed"
    return decided(config, "model", known, packed_weights=(True, why))


def _obstacle_to_packing(config: EngineConfig, known: Known) -> str | None:
    obstacle = obstacle_to_kernels(config, known)
    if obstacle is not None:
        return f"{obstacle}, with plain weights" if known.device.kernels is not None else obstacle
    if not config.model.native_kernels:
        return "native_kernels is off"
    if config.model.dtype not in ("auto", "float", "float32"):
        return f"packed weights compute in float32 and dtype is {config.model.dtype}"
    return None


def decide_dtype(config: EngineConfig, known: Known) -> EngineConfig:
    wish = config.model.dtype
    if wish in DTYPES:
        config = decided(config, "model", known, dtype=(DTYPES[wish], f"another spelling of {wish}"))
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
        return decided(
            config, "model", known, dtype=("float32", "exact, whatever width weights are stored in")
        )
    stored = known.checkpoint.stored_dtype
    if known.checkpoint.architecture.startswith(OVERFLOWING):
        wide = "bfloat16" if known.device.has_fast_bfloat16 else "float32"
        return decided(config, "model", known, dtype=(wide, "this model's numbers are too large for float16"))
    if not known.device.has_fast_bfloat16:
        why = f"checkpoint is {stored}; the {known.device.name} computes no bfloat16"
        return decided(config, "model", known, dtype=("float16", why))
    if stored in ("bfloat16", "float16"):
        return decided(config, "model", known, dtype=(stored, "as stored in the checkpoint"))
    return decided(
        config, "model", known, dtype=("bfloat16", f"checkpoint is {stored}; the device computes bfloat16")
    )


def _narrow_on_cpu(config: EngineConfig, known: Known) -> EngineConfig:
    """A reason for what a narrow dtype means to the native kernels."""
    dtype = config.model.dtype
    if config.model.native_kernels and dtype != "float32":
        why = "asked for: weights are kept in it; the kernels compute in float32, which is exacter"
        known.reasons.append(Reason("dtype", dtype, why))
    return config


def decide_kv_dtype(config: EngineConfig, known: Known) -> EngineConfig:
    wish = config.cache.kv_cache_dtype
    computed = "float32" if config.model.native_kernels else config.model.dtype
    if wish in KV_DTYPES:
        config = decided(
            config, "cache", known, kv_cache_dtype=(KV_DTYPES[wish], f"another spelling of {wish}")
        )
        wish = config.cache.kv_cache_dtype
    if wish == "auto":
        if config.model.packed_weights and known.checkpoint.stored_dtype not in PLAIN_TYPES:
            why = "half of float32's bytes, and rounding them changes less than rounding the weights' inputs"
            return decided(config, "cache", known, kv_cache_dtype=("float16", why))
        return decided(config, "cache", known, kv_cache_dtype=(computed, "as the model computes"))
    obstacle = _obstacle_to_other_kv(config, known)
    if wish != computed and obstacle is not None:
        raise ConfigError(
            f"kv_cache_dtype is {wish} and the model computes in {computed}, but {obstacle}. Leave it out.",
            param="kv_cache_dtype",
        )
    return config


def _obstacle_to_other_kv(config: EngineConfig, known: Known) -> str | None:
    """Why keys and values cannot be kept in other numbers than the model computes in; None if they can."""
    if known.device.kind != "cpu":
        return "a GPU keeps keys and values in the model's dtype"
    if not config.model.native_kernels:
        return "only the native kernels read other numbers, and native_kernels is off"
    return None
