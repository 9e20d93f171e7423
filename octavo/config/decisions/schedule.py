"""How many requests run at a time, and how many tokens a step takes."""

from __future__ import annotations

import math

from octavo.base.errors import ConfigError
from octavo.config.decisions.known import Known, decided
from octavo.config.root import EngineConfig

CPU_SEQS, GPU_SEQS = 64, 1024
ENCODER_SEQS, ENCODER_TOKENS = 256, 2048
"""On a CPU."""
MAX_STATE_BYTES = 8 * 2**30
"""Recurrent state of all requests together, unless max_num_seqs asks for more."""
_STATE_LIMIT = f"{MAX_STATE_BYTES // 2**30} GiB of it"


def decide_schedule(config: EngineConfig, known: Known) -> EngineConfig:
    is_gpu = known.device.kind == "cuda"
    if config.schedule.async_scheduling is None:
        why = (
            "the GPU never waits for the host"
            if is_gpu
            else "on a CPU scheduling and computing share the cores"
        )
        config = decided(config, "schedule", known, async_scheduling=(is_gpu, why))
    if config.schedule.max_num_seqs is None:
        seqs, why = _usual_seqs(known, is_gpu=is_gpu)
        state = known.checkpoint.state_bytes
        if seqs * state > MAX_STATE_BYTES:
            seqs = max(1, MAX_STATE_BYTES // state)
            why = f"each request has {state / 2**20:.1f} MiB of recurrent state; {_STATE_LIMIT} may be taken"
        config = decided(config, "schedule", known, max_num_seqs=(seqs, why))
    for name in ("max_num_queued_reqs", "max_num_queued_tokens", "max_predicted_ttft"):
        if not getattr(config.schedule, name) >= 0:
            raise ConfigError(f"{name} is {getattr(config.schedule, name)}; at least 0.", param=name)
    _check_chunks(config)
    return _step_tokens(config, known)


def _check_chunks(config: EngineConfig) -> None:
    most = config.schedule.long_prefill_token_threshold
    if most < 0:
        raise ConfigError(
            f"long_prefill_token_threshold is {most}; at least 0.", param="long_prefill_token_threshold"
        )
    if most > 0 and not config.schedule.enable_chunked_prefill:
        raise ConfigError(
            f"long_prefill_token_threshold is {most}, but chunked prefill is off: prompts are whole. "
            "Leave it out.",
            param="long_prefill_token_threshold",
        )


def _usual_seqs(known: Known, *, is_gpu: bool) -> tuple[int, str]:
    if is_gpu:
        return GPU_SEQS, "as many as graphs are captured for"
    if known.is_encoder:
        return ENCODER_SEQS, "short texts fill a step together, and an encoder keeps nothing of them"
    return CPU_SEQS, "a CPU gains little from more"


def _step_tokens(config: EngineConfig, known: Known) -> EngineConfig:
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
        return decided(config, "schedule", known, max_num_batched_tokens=(budget, why))
    budget = schedule.max_num_batched_tokens
    if budget < 1:
        raise ConfigError(f"max_num_batched_tokens is {budget}; at least 1.", param="max_num_batched_tokens")
    if not schedule.enable_chunked_prefill and budget < max_len:
        way = "lower max_model_len" if known.is_encoder else "leave chunked prefill on"
        why = "an encoder computes texts whole" if known.is_encoder else "chunked prefill is off"
        raise ConfigError(
            f"max_num_batched_tokens is {budget}, less than max_model_len {max_len}, and {why}. Raise the "
            f"budget or {way}.",
            param="max_num_batched_tokens",
        )
    return config


def _usual_budget(known: Known) -> tuple[int, str]:
    if known.device.kind != "cpu":
        return 8192, "fills the device"
    if known.is_encoder:
        return ENCODER_TOKENS, "few large steps: no text waits for its next token"
    return 512, "keeps a step short on a CPU"
