"""GGUF files of OLMo 2 and 3: one architecture, which windows tell apart."""

from __future__ import annotations

from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.names import QK_NORM_LAYER

FULL, SLIDING = "full_attention", "sliding_attention"
INTERVAL = 4
"""Where a file says nothing: every fourth layer sees all."""


def _extend(config: Config, keys: Keys) -> None:
    window = keys.optional_count("attention.sliding_window")
    if window is None:
        return
    layers, theta = config["num_hidden_layers"], config["rope_theta"]
    config |= {
        "architectures": ["Olmo3ForCausalLM"],
        "model_type": "olmo3",
        "sliding_window": window,
        "layer_types": [
            SLIDING if slides else FULL
            for slides in keys.pattern("attention.sliding_window_pattern", layers, INTERVAL)
        ],
        "rope_parameters": {
            FULL: {"rope_type": "default", **(config.pop("rope_scaling") or {}), "rope_theta": theta},
            # Layers with a window never stretch their rope.
            SLIDING: {"rope_type": "default", "rope_theta": keys.number("rope.freq_base_swa", theta)},
        },
    }


OLMO2 = Architecture(
    class_name="Olmo2ForCausalLM",
    model_type="olmo2",
    layer_names={
        **{name: ours for name, ours in QK_NORM_LAYER.items() if name not in ("attn_norm", "ffn_norm")},
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    extend=_extend,
)
