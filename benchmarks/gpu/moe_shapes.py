"""The models with experts that are timed, by their config.json. Their names are those of `moe_models.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.shapes import BYTES_PER_ELEMENT, Shape


@dataclass(frozen=True)
class ExpertSizes:
    """One layer's experts."""

    num_experts: int
    num_chosen: int
    width: int
    inner: int

    @property
    def expert_bytes(self) -> int:
        return 3 * self.width * self.inner * BYTES_PER_ELEMENT

    @property
    def flop_per_token(self) -> int:
        return 6 * self.width * self.inner * self.num_chosen


def expert_sizes(config: Mapping[str, Any]) -> ExpertSizes:
    return ExpertSizes(
        num_experts=config.get("num_experts") or config["n_routed_experts"],
        num_chosen=config["num_experts_per_tok"],
        width=config["hidden_size"],
        inner=config["moe_intermediate_size"],
    )


QWEN3_30B_A3B = Shape(
    "qwen3-30b-a3b",
    {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "vocab_size": 151936,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "hidden_act": "silu",
        "sliding_window": None,
        "use_sliding_window": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "torch_dtype": "bfloat16",
    },
)

DEEPSEEK_V2_LITE = Shape(
    "deepseek-v2-lite",
    {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "hidden_size": 2048,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "vocab_size": 102400,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": 40,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 0.707,
            "mscale_all_dim": 0.707,
            "original_max_position_embeddings": 4096,
        },
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 163840,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "hidden_act": "silu",
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "torch_dtype": "bfloat16",
    },
)

MOE_SHAPES = {shape.name: shape for shape in (QWEN3_30B_A3B, DEEPSEEK_V2_LITE)}
