"""Names in hf_overrides that no config of the model's kind has: most likely spelled wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from octavo.weights.config_json import CONTEXT_NAMES, COUNT_LIMITS, OLDER_NAMES, text_config
from octavo.weights.token_scores import METHOD, NAMES

OURS = frozenset(
    {
        *(*CONTEXT_NAMES, *COUNT_LIMITS, *OLDER_NAMES, NAMES, METHOD),
        *("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "text_config"),
        *("is_causal", "use_bidirectional_attention", "classifier_pooling"),
        *("sentence_transformers", "sbert_ce_default_activation_function"),
        "is_original_qwen3_reranker",  # vLLM's, beside classifier_from_token, which says it all here
    }
)
"""What is read here, whether a config has it or not."""


def unknown_names(config: dict[str, Any], entries: Mapping[str, Any]) -> dict[str, str | None]:
    """Those of `entries` that neither the checkpoint's config nor transformers' class for it has, each with
    the nearest name there is. Takes transformers only where a config lacks a name."""
    inner = entries.get("text_config")
    names = [*entries, *(inner if isinstance(inner, dict) else ())]
    known = OURS | config.keys() | text_config(config).keys()
    missing = [name for name in names if name not in known]
    if not missing:
        return {}
    known |= _names_of_class(text_config(config).get("model_type") or config.get("model_type"))
    return {name: _nearest(name, known) for name in missing if name not in known}


def _names_of_class(model_type: object) -> set[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        kind = CONFIG_MAPPING[str(model_type)]
        properties = {name for name in dir(kind) if isinstance(getattr(kind, name, None), property)}
        return {*kind().to_dict(), *kind.attribute_map, *properties}
    except Exception:  # a kind that transformers does not know, or that has no defaults
        return set()


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, sorted(known), n=1)), None)
