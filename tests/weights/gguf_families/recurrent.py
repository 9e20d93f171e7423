"""Models with recurrent layers, some of them beside attention."""

from __future__ import annotations

from tests.conformance.families import FAMILIES as CONFORMANCE
from tests.weights.gguf_conversions import granite, qwen3_next, with_factors, with_mixers
from tests.weights.gguf_families.family import HEAD_DIM, KV_HEADS, GGUFFamily

MAMBA2_KEYS = {
    "ssm.conv_kernel": 4,
    "ssm.state_size": 20,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 96,
}
FALCON_H1_KEYS = {
    **MAMBA2_KEYS,
    "attention.key_length": 8,
    "attention.value_length": 8,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 1e4,
}
GRANITE_LAYERS = ["mamba", "mamba", "attention", "mamba"]
GRANITE_KEYS = {
    **MAMBA2_KEYS,
    "attention.head_count_kv": [0, 0, KV_HEADS, 0],
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.scaling.finetuned": False,
    "embedding_scale": 3.5,
    "residual_scale": 0.7,
    "logit_scale": 2.5,
}
RECURRENT: dict[str, dict[str, GGUFFamily]] = {
    "mamba2": {
        "": GGUFFamily(
            model_type="mamba2",
            overrides={**CONFORMANCE["mamba2"][1], "n_groups": 1},
            keys={
                **MAMBA2_KEYS,
                "context_length": 2**20,
                "feed_forward_length": 0,
                "attention.head_count": 0,
                "attention.head_count_kv": None,
                "attention.layer_norm_rms_epsilon": 1e-5,
                "ssm.group_count": 1,
            },
            convert=with_mixers,
        )
    },
    "falcon-h1": {
        "norms and factors": GGUFFamily(
            model_type="falcon_h1",
            overrides={**CONFORMANCE["falcon h1"][1], "mamba_norm_before_gate": False, "mamba_d_ssm": 96},
            keys=FALCON_H1_KEYS,
            convert=with_factors,
        ),
        "no norms": GGUFFamily(
            model_type="falcon_h1",
            overrides={
                **CONFORMANCE["falcon h1, gated alone"][1],
                "mamba_d_ssm": 96,
                "tie_word_embeddings": False,
            },
            keys=FALCON_H1_KEYS,
            convert=with_factors,
        ),
    },
    "granitehybrid": {
        "dense": GGUFFamily(
            model_type="granitemoehybrid",
            overrides={**CONFORMANCE["granite hybrid"][1], "layer_types": GRANITE_LAYERS},
            keys={**GRANITE_KEYS, "feed_forward_length": 56, "attention.scale": 0.11},
            convert=granite,
        ),
        "experts": GGUFFamily(
            model_type="granitemoehybrid",
            overrides={
                **CONFORMANCE["granite hybrid"][1],
                "layer_types": GRANITE_LAYERS,
                "num_local_experts": 5,
                "num_experts_per_tok": 2,
            },
            keys={
                **GRANITE_KEYS,
                "attention.scale": 0.11,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_shared_feed_forward_length": 56,
            },
            convert=granite,
        ),
    },
    "qwen3next": {
        "": GGUFFamily(
            model_type="qwen3_next",
            overrides={
                **CONFORMANCE["qwen3 next"][1],
                "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
                "mlp_only_layers": [],
            },
            keys={
                "attention.key_length": HEAD_DIM,
                "attention.value_length": HEAD_DIM,
                "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.dimension_count": 6,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_feed_forward_length": 28,
                "expert_shared_feed_forward_length": 20,
                "ssm.conv_kernel": 4,
                "ssm.state_size": 12,
                "ssm.group_count": 2,
                "ssm.time_step_rank": 6,
                "ssm.inner_size": 60,
                "full_attention_interval": 4,
            },
            convert=qwen3_next,
        )
    },
}
