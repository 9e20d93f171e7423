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
        "BambaForCausalLM": "octavo.models.bamba:BambaForCausalLM",
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
        "MistralForCausalLM": "octavo.models.llama:MistralForCausalLM",
        "MinistralForCausalLM": "octavo.models.ministral:MinistralForCausalLM",
        "Ministral3ForCausalLM": "octavo.models.ministral:Ministral3ForCausalLM",
        "MixtralForCausalLM": "octavo.models.mixtral:MixtralForCausalLM",
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
