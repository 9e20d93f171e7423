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
        "LlamaForCausalLM": "octavo.models.llama:LlamaForCausalLM",
        "MistralForCausalLM": "octavo.models.llama:MistralForCausalLM",
        "Qwen2ForCausalLM": "octavo.models.qwen:Qwen2ForCausalLM",
        "Qwen3ForCausalLM": "octavo.models.qwen:Qwen3ForCausalLM",
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
