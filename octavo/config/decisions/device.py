"""The device, and on a CPU its native kernels."""

from __future__ import annotations

import dataclasses

from octavo.base.errors import ConfigError
from octavo.base.native import why_no_kernels
from octavo.config.decisions.known import Known, decided
from octavo.config.facts import CPU, DeviceFacts
from octavo.config.native_families import NATIVE
from octavo.config.root import EngineConfig

MAX_THREADS = 1024
"""More than any machine has cores."""


def chosen_device(wishes: EngineConfig, local: DeviceFacts) -> DeviceFacts:
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


def decide_device(config: EngineConfig, known: Known) -> EngineConfig:
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
        return decided(config, "model", known, device=(kind, known.device.why))
    return config


def decide_kernels(config: EngineConfig, known: Known) -> EngineConfig:
    """Whether, and with how many threads."""
    _check_threads(config, known)
    wish = config.model.native_kernels
    obstacle = obstacle_to_kernels(config, known)
    if wish and obstacle is not None:
        raise ConfigError(f"native_kernels is on, but {obstacle}. Leave it out.", param="native_kernels")
    if wish is None:
        why = obstacle or f"the {known.device.kernels} kernels: numbers do not depend on what else runs"
        config = decided(config, "model", known, native_kernels=(obstacle is None, why))
    if config.model.native_kernels and config.model.cpu_threads is None:
        return decided(config, "model", known, cpu_threads=(known.device.num_cores, "one per physical core"))
    return config


def _check_threads(config: EngineConfig, known: Known) -> None:
    threads = config.model.cpu_threads
    if threads is not None and known.device.kind != "cpu":
        raise ConfigError(
            f"cpu_threads is {threads}, but this engine runs on a GPU. Leave it out.", param="cpu_threads"
        )
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"cpu_threads is {threads}; 1 to {MAX_THREADS}.", param="cpu_threads")


def obstacle_to_kernels(config: EngineConfig, known: Known) -> str | None:
    if known.device.kind != "cpu":
        return "this engine runs on a GPU"
    if known.device.kernels is None:
        return why_no_kernels()
    if config.model.runner == "pooling":
        return "models that answer with numbers compute with oneDNN"
    if config.model.model_impl == "transformers":
        return "transformers' modules compute with torch"
    if known.checkpoint.architecture not in NATIVE:
        return f"torch computes {known.checkpoint.architecture}"
    return None
