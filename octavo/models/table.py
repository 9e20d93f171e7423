"""Architecture name in a checkpoint's config -> the class that computes it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError
from octavo.base.table import LazyTable
from octavo.weights.skeleton import has_skeleton

if TYPE_CHECKING:
    from octavo.models.contract import CausalLM

MODELS: LazyTable[type[CausalLM]] = LazyTable(
    "architecture",
    {
        "DeepseekV2ForCausalLM": "octavo.models.deepseek:DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM": "octavo.models.deepseek:DeepseekV3ForCausalLM",
        "BambaForCausalLM": "octavo.models.bamba:BambaForCausalLM",
        "BloomForCausalLM": "octavo.models.bloom:BloomForCausalLM",
        "CohereForCausalLM": "octavo.models.layer_norm_families:CohereForCausalLM",
        "FalconForCausalLM": "octavo.models.falcon:FalconForCausalLM",
        "FalconH1ForCausalLM": "octavo.models.falcon_h1:FalconH1ForCausalLM",
        "GPT2LMHeadModel": "octavo.models.gpt2:GPT2LMHeadModel",
        "GPTJForCausalLM": "octavo.models.gptj:GPTJForCausalLM",
        "GPTNeoXForCausalLM": "octavo.models.gpt_neox:GPTNeoXForCausalLM",
        "GemmaForCausalLM": "octavo.models.gemma:GemmaForCausalLM",
        "Gemma2ForCausalLM": "octavo.models.gemma:Gemma2ForCausalLM",
        "Gemma3ForCausalLM": "octavo.models.gemma3:Gemma3ForCausalLM",
        "GlmForCausalLM": "octavo.models.glm:GlmForCausalLM",
        "Glm4ForCausalLM": "octavo.models.glm:Glm4ForCausalLM",
        "Glm4MoeForCausalLM": "octavo.models.glm_moe:Glm4MoeForCausalLM",
        "Glm4MoeLiteForCausalLM": "octavo.models.deepseek:Glm4MoeLiteForCausalLM",
        "GptOssForCausalLM": "octavo.models.gpt_oss:GptOssForCausalLM",
        "GraniteForCausalLM": "octavo.models.granite:GraniteForCausalLM",
        "GraniteMoeForCausalLM": "octavo.models.granite:GraniteMoeForCausalLM",
        "GraniteMoeHybridForCausalLM": "octavo.models.granite_hybrid:GraniteMoeHybridForCausalLM",
        "LlamaForCausalLM": "octavo.models.llama:LlamaForCausalLM",
        "Mamba2ForCausalLM": "octavo.models.mamba2:Mamba2ForCausalLM",
        "MistralForCausalLM": "octavo.models.llama:MistralForCausalLM",
        "MinistralForCausalLM": "octavo.models.ministral:MinistralForCausalLM",
        "Ministral3ForCausalLM": "octavo.models.ministral:Ministral3ForCausalLM",
        "MixtralForCausalLM": "octavo.models.mixtral:MixtralForCausalLM",
        "MptForCausalLM": "octavo.models.mpt:MptForCausalLM",
        "NemotronForCausalLM": "octavo.models.layer_norm_families:NemotronForCausalLM",
        "OPTForCausalLM": "octavo.models.opt:OPTForCausalLM",
        "Olmo2ForCausalLM": "octavo.models.olmo:Olmo2ForCausalLM",
        "Olmo3ForCausalLM": "octavo.models.olmo:Olmo3ForCausalLM",
        "OlmoeForCausalLM": "octavo.models.olmoe:OlmoeForCausalLM",
        "PhiForCausalLM": "octavo.models.layer_norm_families:PhiForCausalLM",
        "Phi3ForCausalLM": "octavo.models.phi:Phi3ForCausalLM",
        "Qwen2ForCausalLM": "octavo.models.qwen:Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM": "octavo.models.qwen_moe:Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM": "octavo.models.qwen:Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM": "octavo.models.qwen_moe:Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM": "octavo.models.qwen3_next:Qwen3NextForCausalLM",
        "SmolLM3ForCausalLM": "octavo.models.smollm3:SmolLM3ForCausalLM",
        "StableLmForCausalLM": "octavo.models.layer_norm_families:StableLmForCausalLM",
        "Starcoder2ForCausalLM": "octavo.models.layer_norm_families:Starcoder2ForCausalLM",
    },
)


class ModelPath(StrEnum):
    """Who computes a model."""

    OCTAVO = "octavo"
    """A class of ours."""
    TRANSFORMERS = "transformers"
    """transformers' modules, on our attention."""


def choose_path(config: Mapping[str, Any], wish: str = "auto") -> ModelPath:
    """Ours where we have the architecture, else transformers'. `wish` is the option model_impl.

    Whether transformers' can run on our attention shows only when it is built. Raises ModelFileError if
    neither has the architecture.
    """
    names = config.get("architectures") or []
    is_ours = any(name in MODELS for name in names)
    if wish != ModelPath.TRANSFORMERS and is_ours:
        return ModelPath.OCTAVO
    if wish != ModelPath.OCTAVO and has_skeleton(config):
        return ModelPath.TRANSFORMERS
    stated = ", ".join(map(str, names)) or "none stated"
    if wish == ModelPath.TRANSFORMERS:
        raise ModelFileError(
            f"The installed transformers has no causal language model of the architecture {stated}. "
            + ("Octavo has: leave model_impl out." if is_ours else "Another version of it may have one.")
        )
    if wish == ModelPath.OCTAVO:
        raise ModelFileError(
            f"Octavo has no model of its own for the architecture {stated}; it has "
            f"{', '.join(sorted(MODELS))}. Leave model_impl out to run others through transformers."
        )
    raise ModelFileError(
        f"The model's architecture is not supported: {stated}. It is neither a causal language model of the "
        f"installed transformers nor one of Octavo's own: {', '.join(sorted(MODELS))}. "
        "A newer transformers may have it."
        + (" Code that the checkpoint brings is never run." if config.get("auto_map") else "")
    )


def find_model_class(config: Mapping[str, Any], wish: str = "auto") -> type[CausalLM]:
    """The class that computes the model; see choose_path."""
    if choose_path(config, wish) is ModelPath.TRANSFORMERS:
        from octavo.models.fallback.model import TransformersForCausalLM

        return TransformersForCausalLM
    return next(MODELS.load(name) for name in config["architectures"] if name in MODELS)
