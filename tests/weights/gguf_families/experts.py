"""Mixtures of experts."""

from __future__ import annotations

from tests.conformance.fallback import EXPERTS
from tests.conformance.families import FAMILIES as CONFORMANCE
from tests.weights.gguf_conversions import glm4_moe, glm4_moe_that_drafts, granite, without_experts
from tests.weights.gguf_families.family import HEAD_DIM, RMS, RMS6, WIDE, GGUFFamily

GLM4_MOE_KEYS = {
    **RMS,
    "attention.key_length": HEAD_DIM,
    "attention.value_length": HEAD_DIM,
    "rope.dimension_count": 6,
    "rope.freq_base": 1e4,
    "expert_count": 10,
    "expert_used_count": 3,
    "expert_feed_forward_length": 20,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "expert_weights_scale": 1.4,
    "expert_weights_norm": True,
    "leading_dense_block_count": 1,
}
MIXTURES: dict[str, dict[str, GGUFFamily]] = {
    "glm4moe": {
        "": GGUFFamily(
            model_type="glm4_moe",
            overrides={**CONFORMANCE["glm4_moe"][1], "norm_topk_prob": False},
            keys={**GLM4_MOE_KEYS, "expert_weights_norm": False},
            convert=glm4_moe,
        ),
        "Air": GGUFFamily(
            model_type="glm4_moe",
            overrides={**CONFORMANCE["glm4_moe"][1], "use_qk_norm": False},
            keys=GLM4_MOE_KEYS,
            convert=glm4_moe,
        ),
        "with a layer that drafts": GGUFFamily(
            model_type="glm4_moe",
            overrides=CONFORMANCE["glm4_moe"][1],
            keys={**GLM4_MOE_KEYS, "block_count": 3, "nextn_predict_layers": 1},
            convert=glm4_moe_that_drafts,
        ),
        "experts in all layers (Solar)": GGUFFamily(
            model_type="solar_open",
            overrides={
                "num_hidden_layers": 2,
                "moe_intermediate_size": 20,
                "n_routed_experts": 10,
                "num_experts_per_tok": 3,
                "routed_scaling_factor": 1.4,
            },
            keys={
                **GLM4_MOE_KEYS,
                "rope.dimension_count": HEAD_DIM,
                "rope.freq_base": 1e6,
                "leading_dense_block_count": None,
            },
            convert=glm4_moe,
        ),
    },
    "qwen2moe": {
        "": GGUFFamily(
            model_type="qwen2_moe",
            overrides={**EXPERTS, "head_dim": ..., "shared_expert_intermediate_size": 28},
            keys={
                **RMS6,
                "rope.freq_base": 1e4,
                "expert_count": 6,
                "expert_used_count": 2,
                "expert_feed_forward_length": 20,
                "expert_shared_feed_forward_length": 28,
            },
            convert=without_experts,
        )
    },
    "granitemoe": {
        "": GGUFFamily(
            model_type="granitemoe",
            overrides={**CONFORMANCE["granitemoe"][1], "head_dim": ...},
            keys={
                **RMS6,
                "embedding_scale": 3.5,
                "attention.scale": 0.11,
                "residual_scale": 0.7,
                "logit_scale": 2.5,
                "expert_count": 5,
                "expert_used_count": 2,
            },
            convert=granite,
        )
    },
    "qwen3moe": {
        "": GGUFFamily(
            model_type="qwen3_moe",
            overrides={**EXPERTS, "norm_topk_prob": True},
            keys={**WIDE, "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20},
            convert=without_experts,
        )
    },
    "olmoe": {
        "": GGUFFamily(
            model_type="olmoe",
            overrides={"num_experts": 6, "num_experts_per_tok": 2, "head_dim": 8},
            keys={**RMS, "expert_count": 6, "expert_used_count": 2, "rope.freq_base": 1e4},
            convert=without_experts,
        )
    },
}
