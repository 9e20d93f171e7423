"""The GGUF architectures we read: a line of the table each, plus what only that one has in its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.weights.gguf import deepseek, names
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.bert import BERT, NOMIC_BERT, read_pooling
from octavo.weights.gguf.fused import FUSED
from octavo.weights.gguf.glm_moe import GLM4_MOE
from octavo.weights.gguf.granite import GRANITES
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.layer_norms import LAYER_NORMS
from octavo.weights.gguf.mamba import MAMBAS
from octavo.weights.gguf.mistral3 import MISTRAL3
from octavo.weights.gguf.olmo import OLMO2
from octavo.weights.gguf.qwen3_next import QWEN3_NEXT
from octavo.weights.gguf.views import ExpertNames, JoinedNames


def find_architecture(metadata: Mapping[str, Any]) -> tuple[str, Architecture]:
    """Return the architecture's GGUF name and its line. Raises ModelFileError naming what is supported."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        said = (
            f"has the architecture {name[:80]!r}"
            if isinstance(name, str)
            else "does not name its architecture"
        )
        raise ModelFileError(f"The GGUF file {said}. Supported are: {', '.join(ARCHITECTURES)}.")
    return name, ARCHITECTURES[name]


def _maybe_mistral(config: Config, keys: Keys) -> None:
    """Mistral and Mixtral are stored as llama; only a window and experts tell them apart."""
    window = keys.optional_count("attention.sliding_window")
    if "num_experts" in config:
        config |= {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "sliding_window": window}
    elif window is not None:
        config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def _gemma(config: Config, keys: Keys) -> None:  # noqa: ARG001
    config["hidden_act"] = config["hidden_activation"] = "gelu_pytorch_tanh"


def _gemma2(config: Config, keys: Keys) -> None:
    _gemma(config, keys)
    _windows(config, keys, layers_of_27b=46, period=2)
    config["attn_logit_softcapping"] = keys.number("attn_logit_softcapping", 50.0)
    config["final_logit_softcapping"] = keys.number("final_logit_softcapping", 30.0)


def _gemma3(config: Config, keys: Keys) -> None:
    _gemma(config, keys)
    _windows(config, keys, layers_of_27b=62, period=6)
    config["rope_local_base_freq"] = keys.number("rope.freq_base_swa", 10000.0)
    softcap = keys.number("final_logit_softcapping")
    if softcap is not None:
        config["final_logit_softcapping"] = softcap


DENSE = ("dense_2", "dense_3")
"""EmbeddingGemma's layers behind the pooling, by sentence-transformers' numbers."""


def _gemma_embedding(config: Config, keys: Keys) -> None:
    _gemma3(config, keys)
    config.pop("is_causal", None)  # It would count windows in another way.
    config["use_bidirectional_attention"] = True
    read_pooling(config, keys)
    found = [name for name in DENSE if f"{name}.weight" in keys.tensor_names]
    config["gguf_dense"] = {
        name: [keys.count(f"{name}_feat_in"), keys.count(f"{name}_feat_out")] for name in found
    }


def _windows(config: Config, keys: Keys, *, layers_of_27b: int, period: int) -> None:
    """Files do not say what scores are divided by; only a family's largest model departs from head_dim."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    is_27b = layers == layers_of_27b
    config["query_pre_attn_scalar"] = config["hidden_size"] // heads if is_27b else config["head_dim"]
    config["sliding_window"] = keys.count("attention.sliding_window")
    config["layer_types"] = [
        "full_attention" if (index + 1) % period == 0 else "sliding_attention" for index in range(layers)
    ]


def _qwen2_moe(config: Config, keys: Keys) -> None:
    keys.count("expert_count")
    config["norm_topk_prob"] = False
    config["shared_expert_intermediate_size"] = keys.count("expert_shared_feed_forward_length")


def _qwen3_moe(config: Config, keys: Keys) -> None:
    keys.count("expert_count")
    config["norm_topk_prob"] = True


def _olmoe(config: Config, keys: Keys) -> None:
    keys.count("expert_count")
    config["norm_topk_prob"] = False


def _gpt_oss(config: Config, keys: Keys) -> None:
    """Its yarn is not cut to whole dimensions, which files do not say."""
    keys.count("expert_count")
    config["sliding_window"] = keys.count("attention.sliding_window")
    if config["rope_scaling"] is not None:
        config["rope_scaling"]["truncate"] = False


SEPARATE = ExpertNames("mlp", gate="gate_proj", up="up_proj", down="down_proj")

_QWEN2 = Architecture(class_name="Qwen2ForCausalLM", model_type="qwen2", layer_names=names.LLAMA_LAYER)
_QWEN3 = Architecture(class_name="Qwen3ForCausalLM", model_type="qwen3", layer_names=names.QK_NORM_LAYER)
_QWEN3_MOE = Architecture(
    class_name="Qwen3MoeForCausalLM",
    model_type="qwen3_moe",
    layer_names=names.QWEN3_MOE_LAYER,
    experts=SEPARATE,
    extend=_qwen3_moe,
)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        class_name="LlamaForCausalLM",
        other_classes=("MistralForCausalLM", "MixtralForCausalLM"),
        model_type="llama",
        layer_names=names.MIXTRAL_LAYER,
        has_interleaved_rope=True,
        experts=ExpertNames("block_sparse_moe", gate="w1", up="w3", down="w2"),
        extend=_maybe_mistral,
    ),
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "qwen2vl": _QWEN2,  # as the next two: the part for text of models that see pictures
    "qwen3vl": _QWEN3,
    "qwen3vlmoe": _QWEN3_MOE,
    "qwen2moe": Architecture(
        class_name="Qwen2MoeForCausalLM",
        model_type="qwen2_moe",
        layer_names=names.QWEN2_MOE_LAYER,
        experts=SEPARATE,
        extend=_qwen2_moe,
    ),
    "qwen3moe": _QWEN3_MOE,
    "gpt-oss": Architecture(
        class_name="GptOssForCausalLM",
        model_type="gpt_oss",
        layer_names=names.GPT_OSS_LAYER,
        experts=JoinedNames(
            "mlp", gate_up="experts.gate_up_proj", down="experts.down_proj", is_alternating=True
        ),
        extend=_gpt_oss,
    ),
    "olmoe": Architecture(
        class_name="OlmoeForCausalLM",
        model_type="olmoe",
        layer_names=names.QWEN3_MOE_LAYER,
        experts=SEPARATE,
        extend=_olmoe,
    ),
    "deepseek2": Architecture(
        class_name="DeepseekV2ForCausalLM",
        other_classes=("DeepseekV3ForCausalLM",),
        model_type="deepseek_v2",
        layer_names=names.DEEPSEEK2_LAYER,
        experts=SEPARATE,
        add_own_tensor=deepseek.add_split_tensor,
        head_dim=deepseek.rotated_width,
        log_multiplier=deepseek.log_multiplier,
        extend=deepseek.extend_config,
    ),
    "smollm3": Architecture(
        class_name="SmolLM3ForCausalLM",
        model_type="smollm3",
        layer_names=names.LLAMA_LAYER,
        has_interleaved_rope=True,
    ),
    "olmo2": OLMO2,
    "mistral3": MISTRAL3,
    "bert": BERT,
    "nomic-bert": NOMIC_BERT,
    "glm4moe": GLM4_MOE,
    "gemma": Architecture(
        class_name="GemmaForCausalLM",
        model_type="gemma",
        layer_names=names.LLAMA_LAYER,
        norm_offset=1.0,
        extend=_gemma,
    ),
    "gemma2": Architecture(
        class_name="Gemma2ForCausalLM",
        model_type="gemma2",
        layer_names=names.GEMMA2_LAYER,
        norm_offset=1.0,
        extend=_gemma2,
    ),
    "gemma3": Architecture(
        class_name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        layer_names=names.GEMMA3_LAYER,
        norm_offset=1.0,
        extend=_gemma3,
    ),
    "gemma-embedding": Architecture(
        class_name="Gemma3TextModel",
        model_type="gemma3_text",
        layer_names=names.GEMMA3_LAYER,
        outside_names={**names.OUTSIDE_LAYERS, **{f"{name}.weight": f"{name}.weight" for name in DENSE}},
        norm_offset=1.0,
        extend=_gemma_embedding,
    ),
    **FUSED,
    **GRANITES,
    **LAYER_NORMS,
    **MAMBAS,
    "qwen3next": QWEN3_NEXT,
}
"""general.architecture -> how it is stored."""
