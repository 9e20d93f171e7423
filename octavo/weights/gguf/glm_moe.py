"""GGUF files of GLM-4.5, 4.6 and those like them: DeepSeek's experts behind ordinary attention."""

from __future__ import annotations

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.deepseek import SIGMOID
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.names import DEEPSEEK2_LAYER, QK_NORM_LAYER
from octavo.weights.gguf.views import ExpertNames

_LAYER = {
    **{name: ours for name, ours in QK_NORM_LAYER.items() if name != "ffn_norm"},
    **{name: ours for name, ours in DEEPSEEK2_LAYER.items() if ours.startswith("mlp.")},
    "post_attention_norm": "post_attention_layernorm",
}


def _extend(config: Config, keys: Keys) -> None:
    """Raises ModelFileError for what was not converted for text alone, and for other ways of routing."""
    if keys.metadata.get(f"{keys.prefix}.rope.dimension_sections") is not None:
        raise ModelFileError(
            f"{keys.prefix}.rope.dimension_sections is set: the GGUF file holds the text part of a model "
            "that sees pictures. Only models for text alone are supported."
        )
    keys.count("expert_count")
    gating = keys.count("expert_gating_func", SIGMOID)
    if gating != SIGMOID:
        raise ModelFileError(
            f"{keys.prefix}.expert_gating_func is {gating}; {SIGMOID} (sigmoid) is supported."
        )
    config |= {
        "attention_bias": keys.has_tensor("attn_q.bias"),
        "use_qk_norm": keys.has_tensor("attn_q_norm.weight"),
        "first_k_dense_replace": keys.optional_count("leading_dense_block_count") or 0,
        "n_shared_experts": keys.optional_count("expert_shared_count"),
        "routed_scaling_factor": keys.number("expert_weights_scale", 1.0),
        "norm_topk_prob": keys.flag("expert_weights_norm", False),
        "n_group": keys.count("expert_group_count", 1),
        "topk_group": keys.count("expert_group_used_count", 1),
    }


GLM4_MOE = Architecture(
    class_name="Glm4MoeForCausalLM",
    model_type="glm4_moe",
    layer_names=_LAYER,
    experts=ExpertNames("mlp", gate="gate_proj", up="up_proj", down="down_proj"),
    may_rotate_part=True,
    extend=_extend,
)
