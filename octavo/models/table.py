"""Architecture name in a checkpoint's config -> the class that computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError
from octavo.base.table import LazyTable

if TYPE_CHECKING:
    from octavo.models.contract import CausalLM

MODELS: LazyTable[type[CausalLM]] = LazyTable(
    "architecture",
    {
        "DeepseekV2ForCausalLM": "octavo.models.deepseek:DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM": "octavo.models.deepseek:DeepseekV3ForCausalLM",
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
        "LlamaForCausalLM": "octavo.models.llama:LlamaForCausalLM",
        "MistralForCausalLM": "octavo.models.llama:MistralForCausalLM",
        "MinistralForCausalLM": "octavo.models.ministral:MinistralForCausalLM",
        "Ministral3ForCausalLM": "octavo.models.ministral:Ministral3ForCausalLM",
        "MixtralForCausalLM": "octavo.models.mixtral:MixtralForCausalLM",
        "Olmo2ForCausalLM": "octavo.models.olmo:Olmo2ForCausalLM",
        "Olmo3ForCausalLM": "octavo.models.olmo:Olmo3ForCausalLM",
        "OlmoeForCausalLM": "octavo.models.olmoe:OlmoeForCausalLM",
        "Phi3ForCausalLM": "octavo.models.phi:Phi3ForCausalLM",
        "Qwen2ForCausalLM": "octavo.models.qwen:Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM": "octavo.models.qwen_moe:Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM": "octavo.models.qwen:Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM": "octavo.models.qwen_moe:Qwen3MoeForCausalLM",
        "SmolLM3ForCausalLM": "octavo.models.smollm3:SmolLM3ForCausalLM",
    },
)


def find_model_class(config: Mapping[str, Any]) -> type[CausalLM]:
    """The class for the first architecture we know. Raises ModelFileError naming those we have."""
    names = config.get("architectures") or []
    for name in names:
        if name in MODELS:
            return MODELS.load(name)
    stated = ", ".join(map(str, names)) or "none stated"
    raise ModelFileError(
        f"The model's architecture is not supported: {stated}. Supported: {', '.join(sorted(MODELS))}."
    )
