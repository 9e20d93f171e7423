"""Encoders by the beginning of their architecture's name, and how a decoder's name says that it is pooled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.base.table import LazyTable
from octavo.models.table import MODELS
from octavo.weights.encoder_shapes import CLASSIFIES
from octavo.weights.label_scores import sees_both_ways
from octavo.weights.skeleton import has_skeleton
from octavo.weights.token_scores import names_tokens

if TYPE_CHECKING:
    from octavo.models.pooled.model import Encoder


ENCODERS: LazyTable[type[Encoder]] = LazyTable(
    "encoder",
    {
        "Bert": "octavo.models.pooled.bert:BertModel",
        "Camembert": "octavo.models.pooled.bert:RobertaModel",
        "DebertaV2": "octavo.models.pooled.deberta:DebertaModel",
        "DistilBert": "octavo.models.pooled.bert:DistilBertModel",
        "Electra": "octavo.models.pooled.bert:ElectraModel",
        "Gte": "octavo.models.pooled.rotated:GteModel",
        "MPNet": "octavo.models.pooled.mpnet:MPNetModel",
        "ModernBert": "octavo.models.pooled.modernbert:ModernBertModel",
        "New": "octavo.models.pooled.rotated:NewModel",
        "NomicBert": "octavo.models.pooled.rotated:NomicBertModel",
        "Roberta": "octavo.models.pooled.bert:RobertaModel",
        "XLMRoberta": "octavo.models.pooled.bert:RobertaModel",
    },
)
"""Each as `...Model`, which embeds, and as `...ForSequenceClassification`."""

GUESSES = "ForMaskedLM"
"""Some embedding models still call themselves what they were trained from. Their head is left out."""

WRITES = ("ForCausalLM", "LMHeadModel")
SAME_LAYERS = {"EuroBert": "Llama"}
"""Encoders that are a decoder's layers, under a name of their own."""


def encoder_of(architecture: str) -> str | None:
    """Its key in ENCODERS, if it is one."""
    for ending in ("Model", CLASSIFIES, GUESSES):
        if architecture.endswith(ending) and architecture.removesuffix(ending) in ENCODERS:
            return architecture.removesuffix(ending)
    return None


def decoder_of(architecture: str) -> str | None:
    """The decoder in MODELS that this architecture pools: Qwen3Model and Gemma3TextModel are such names."""
    for ending in (*WRITES, GUESSES, CLASSIFIES, "TextModel", "Model"):
        if architecture.endswith(ending):
            name = architecture.removesuffix(ending).removesuffix("Text")
            if name in SAME_LAYERS and ending == CLASSIFIES:
                return None  # Its head is another.
            name = SAME_LAYERS.get(name, name)
            found = next((name + writes for writes in WRITES if name + writes in MODELS), None)
            if found is not None:
                return found
    return None


def pooled_architectures() -> list[str]:
    """All names by which a model to be pooled may call itself."""
    decoders = [name.removesuffix(writes) for name in MODELS for writes in WRITES if name.endswith(writes)]
    names = [f"{name}{ending}" for name in [*ENCODERS, *decoders] for ending in ("Model", CLASSIFIES)]
    return sorted([*names, *(f"{name}Model" for name in SAME_LAYERS)])


def refusal(config: Mapping[str, Any]) -> str:
    """Of a model that cannot be pooled."""
    stated = ", ".join(map(str, config.get("architectures") or [])) or "none stated"
    return (
        f"No model of this architecture can be pooled: {stated}. "
        f"Supported: {', '.join(pooled_architectures())}; and to embed, all that write through transformers."
    )


def pools_theirs(config: Mapping[str, Any]) -> bool:
    """Whether it is a decoder that writes through transformers' modules: its hidden states can embed."""
    return not sees_both_ways(config) and not names_tokens(config) and has_skeleton(config)
