"""What a config says of recurrent layers: how many of its layers attend, and what a request's state takes.

Arithmetic for planning, without torch. A family is a line of the table; all others only attend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from octavo.weights.config_json import text_config

Config = dict[str, Any]
STATE_BYTES = 4
"""States are float32. So are convolutions' windows here, though some are kept narrower: they are small."""


class RecurrentFacts(NamedTuple):
    num_attention_layers: int
    state_bytes: int
    """Of one request, in all layers."""


def recurrent_facts(config: Config) -> RecurrentFacts:
    """The config has passed `check_config`; what it does not say counts as nothing."""
    text = text_config(config)
    read = FAMILIES.get(str(text.get("model_type")))
    if read is None:
        return RecurrentFacts(text.get("num_hidden_layers") or 0, 0)
    try:
        return read(text)
    except (TypeError, ValueError):
        # The model's own reader names what is wrong.
        return RecurrentFacts(text.get("num_hidden_layers") or 0, STATE_BYTES)


def _granite(config: Config) -> RecurrentFacts:
    layers = config.get("num_hidden_layers") or 0
    kinds = config.get("layer_types") or config.get("layers_block_type") or []
    num_attention = sum(kind in ("attention", "full_attention") for kind in kinds)
    return RecurrentFacts(num_attention, (layers - num_attention) * _mamba2_bytes(config))


def _mamba2_bytes(config: Config) -> int:
    """Of one layer: the state, and the window of the convolution."""
    inner = config.get("mamba_d_ssm") or (config.get("mamba_expand") or 2) * (config.get("hidden_size") or 0)
    size, groups = config.get("mamba_d_state") or 0, config.get("mamba_n_groups") or 1
    window = ((config.get("mamba_d_conv") or 4) - 1) * (inner + 2 * groups * size)
    return STATE_BYTES * int(inner * size + window)


def _bamba(config: Config) -> RecurrentFacts:
    layers, num_attention = config.get("num_hidden_layers") or 0, len(config.get("attn_layer_indices") or [])
    return RecurrentFacts(num_attention, (layers - num_attention) * _mamba2_bytes(config))


def _falcon_h1(config: Config) -> RecurrentFacts:
    """Every layer is of both kinds."""
    layers = config.get("num_hidden_layers") or 0
    return RecurrentFacts(layers, layers * _mamba2_bytes(config))


def _qwen3_next(config: Config) -> RecurrentFacts:
    layers, kinds = config.get("num_hidden_layers") or 0, config.get("layer_types")
    period = config.get("full_attention_interval") or 4
    num_attention = layers // period if kinds is None else kinds.count("full_attention")
    key, groups = config.get("linear_key_head_dim") or 0, config.get("linear_num_key_heads") or 0
    inner = (config.get("linear_value_head_dim") or 0) * (config.get("linear_num_value_heads") or 0)
    window = ((config.get("linear_conv_kernel_dim") or 4) - 1) * (inner + 2 * groups * key)
    return RecurrentFacts(num_attention, (layers - num_attention) * STATE_BYTES * (inner * key + window))


def _mamba2(config: Config) -> RecurrentFacts:
    spelled = {
        "mamba_expand": config.get("expand"),
        "mamba_d_state": config.get("state_size"),
        "mamba_n_groups": config.get("n_groups"),
        "mamba_d_conv": config.get("conv_kernel"),
        "hidden_size": config.get("hidden_size"),
    }
    return RecurrentFacts(0, (config.get("num_hidden_layers") or 0) * _mamba2_bytes(spelled))


FAMILIES: dict[str, Callable[[Config], RecurrentFacts]] = {
    "bamba": _bamba,
    "falcon_h1": _falcon_h1,
    "granitemoehybrid": _granite,
    "mamba2": _mamba2,
    "qwen3_next": _qwen3_next,
}
"""model_type -> its facts."""
