"""config.json and generation_config.json: read safely, numbers checked before anybody computes with them.

The file's dict is kept as it is, and counts under older names are added
under today's; both spellings of transformers 4 and 5 are understood. Code that a
config points to (`auto_map`) is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from octavo.base.errors import ConfigError, ModelFileError
from octavo.base.files import confined, has_file, read_small
from octavo.weights.rope_override import respell_rope
from octavo.weights.strict_json import parse_object

MAX_CONFIG_BYTES = 8 * 2**20
MAX_CONTEXT = 2**24

COUNT_LIMITS = {
    "num_hidden_layers": 1024,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "kv_lora_rank": 2**16,
    "q_lora_rank": 2**16,
    "qk_nope_head_dim": 2**14,
    "qk_rope_head_dim": 2**14,
    "v_head_dim": 2**14,
    "moe_intermediate_size": 2**22,
    "n_routed_experts": 2**14,
    "vocab_size": 2**24,
    "max_position_embeddings": MAX_CONTEXT,
    "sliding_window": MAX_CONTEXT,
}
"""Counts that are at least 1, and the most we believe."""

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")

COUNTING_FROM_PADDING = frozenset({"camembert", "roberta", "xlm-roberta"})
FIRST_POSITIONS = {"mpnet": 2}
"""Of kinds whose code says it: MPNet's takes 1 for the padding token's id, whatever the config has."""

WITHOUT_POSITIONS = ("mamba2",)
"""Models that know no positions: a text may have any length."""
LONG_CONTEXT = 2**18
"""What texts of theirs are held to: ids are kept for so many."""
UNSAID = {"bloom": 2048, "falcon": 2048}
"""Positions of models whose configs do not all say it: what BLOOM and the first Falcons were trained with."""
OLDER_NAMES = {
    "n_embd": "hidden_size",
    "n_embed": "hidden_size",
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_layers": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_heads": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
    "ffn_hidden_size": "intermediate_size",
    "num_kv_heads": "num_key_value_heads",
}
"""What GPT-2, OPT, BLOOM, MPT, Falcon and others of their time call the counts above."""

OLDER_CLASSES = {"MPTForCausalLM": "MptForCausalLM"}
"""What MosaicML's own configs call the class."""

_POSITIVE_ROPE = (
    "rope_theta",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
)


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check config.json of a model folder."""
    if not has_file(folder, "config.json"):
        raise ModelFileError(f"The folder {folder.name!r} has no config.json, so it is not a model folder.")
    config = parse_object(read_small(confined(folder, "config.json"), MAX_CONFIG_BYTES), "config.json")
    add_modern_names(config)
    check_config(config)
    return config


FIXED = ("auto_map", "quantization_config")
"""Entries that say what lies in the files; another value would not make it so."""


def override(config: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """The config with a user's entries over its own, checked again. Those of `text_config` are merged too.

    Raises ConfigError or, where the result cannot be, ModelFileError.
    """
    fixed = [name for name in entries if name in FIXED]
    if fixed:
        raise ConfigError(
            f"hf_overrides cannot change {fixed[0]}: it says what lies in the model's files. Leave it out.",
            param="hf_overrides",
        )
    entries = _in_modern_names(entries)
    own, wished = config.get("text_config"), entries.get("text_config")
    merged = {**config, **entries}
    if isinstance(own, dict) and isinstance(wished, dict):
        merged["text_config"] = {**own, **wished}
        respell_rope(merged["text_config"], wished)
    elif isinstance(wished, dict):  # there is nothing but text
        del merged["text_config"]
        merged |= wished
        respell_rope(merged, wished)
    respell_rope(merged, entries)
    add_modern_names(merged)
    check_config(merged)
    return merged


def _in_modern_names(entries: Mapping[str, Any]) -> dict[str, Any]:
    """An entry under an older name is one under today's, too: the config has both, and today's counts."""
    modern = {name: entries[older] for older, name in OLDER_NAMES.items() if older in entries}
    modern |= entries
    if isinstance(inner := entries.get("text_config"), dict):
        modern["text_config"] = _in_modern_names(inner)
    return modern


def add_modern_names(config: dict[str, Any]) -> None:
    """Counts under older names are found under today's too; classes have today's."""
    for older, name in OLDER_NAMES.items():
        if config.get(name) is None and config.get(older) is not None:
            config[name] = config[older]
    classes = config.get("architectures")
    if isinstance(classes, list):
        config["architectures"] = [OLDER_CLASSES.get(str(name), name) for name in classes]


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Read generation_config.json; {} where there is none."""
    if not has_file(folder, "generation_config.json"):
        return {}
    path = confined(folder, "generation_config.json")
    return parse_object(read_small(path, MAX_CONFIG_BYTES), "generation_config.json")


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part that describes the language model: `text_config` of a nested config, else all of it."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def check_config(config: dict[str, Any]) -> None:
    """Raise ModelFileError, with both numbers, where the config contradicts itself or all reason."""
    text = text_config(config)
    for part in (config,) if text is config else (config, text):
        _check_part(part)


def _check_part(part: dict[str, Any]) -> None:
    kind = part.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise ModelFileError(f"The model's model_type is {_short(kind)}; it must be a name.")
    _check_classes(part.get("architectures"))
    # transformers writes a sliding_window of 0 beside use_sliding_window false.
    unused = "sliding_window" if part.get("use_sliding_window") is False else None
    for name, limit in COUNT_LIMITS.items():
        if part.get(name) is not None and name != unused:
            _check_count(name, part[name], limit)
    _check_heads(part)
    _check_positive("rms_norm_eps", part.get("rms_norm_eps"), may_be_zero=True)
    _check_positive("rope_theta", part.get("rope_theta"))
    for parameters in rope_dicts(part):
        _check_rope(parameters)


def _check_classes(classes: object) -> None:
    if classes is None:
        return
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ModelFileError(f"The model's architectures is {_short(classes)}; it must be a list of names.")


def _check_count(name: str, value: object, limit: int) -> None:
    if type(value) is not int:
        raise ModelFileError(f"The model's {name} is {_short(value)}; it must be a whole number.")
    if not 1 <= value <= limit:
        raise ModelFileError(f"The model's {name} is {_short(value)}; 1 to {limit} is possible.")


def _check_heads(text: dict[str, Any]) -> None:
    heads, hidden = text.get("num_attention_heads"), text.get("hidden_size")
    if heads is None or hidden is None:
        return
    has_width = text.get("head_dim") is not None or text.get("qk_nope_head_dim") is not None
    if not has_width and hidden % heads:
        raise ModelFileError(
            f"The model's hidden_size {hidden} is not a multiple of its {heads} attention heads."
        )
    kv_heads = text.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise ModelFileError(
            f"The model's {heads} attention heads are not a multiple of its {kv_heads} KV heads."
        )


def rope_dicts(text: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every dict of rope parameters, whichever spelling, also those per layer type."""
    for name in ("rope_parameters", "rope_scaling"):
        value = text.get(name)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise ModelFileError(f"The model's {name} is a {type(value).__name__}; it must be an object.")
        nested = [item for item in value.values() if isinstance(item, dict)]
        yield from nested or [value]


def rope_type(parameters: dict[str, Any]) -> str:
    """The kind of scaling: 'default' where there is none."""
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def _check_rope(parameters: dict[str, Any]) -> None:
    for name in _POSITIVE_ROPE:
        _check_positive(f"rope {name}", parameters.get(name))
    factor = parameters.get("factor")
    _check_positive("rope scaling factor", factor)
    if factor is not None and factor < 1:
        raise ModelFileError(f"The model's rope scaling factor is {_short(factor)}; it must be at least 1.")
    low, high = parameters.get("low_freq_factor"), parameters.get("high_freq_factor")
    if low is not None and high is not None and high <= low:
        raise ModelFileError(
            f"The model's rope high_freq_factor {high} is not over its low_freq_factor {low}."
        )


def _check_positive(name: str, value: object, *, may_be_zero: bool = False) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not _is_finite(value) or value < 0 or (value == 0 and not may_be_zero):  # type: ignore[arg-type, operator]
        raise ModelFileError(f"The model's {name} is {_short(value)}; it must be a finite number over 0.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def context_length(config: dict[str, Any]) -> int:
    """Positions the model was made for, rope scaling included.

    linear and dynamic scaling stretch the stated length, yarn the original one; llama3 and longrope
    state the stretched length already, and so does Gemma 3.
    """
    text = text_config(config)
    stated = next((text[name] for name in CONTEXT_NAMES if text.get(name) is not None), None)
    if stated is None and text.get("model_type") in WITHOUT_POSITIONS:
        return LONG_CONTEXT
    if stated is None:
        stated = UNSAID.get(str(text.get("model_type")))
    if stated is None:
        raise ModelFileError(
            "The model's config does not say how many positions it has (max_position_embeddings)."
        )
    _check_count("max_position_embeddings", stated, MAX_CONTEXT)
    length = int(stated) - first_position(text)
    if length < 1:
        raise ModelFileError(
            f"The model's max_position_embeddings is {stated}, but its texts begin at {int(stated) - length}."
        )
    if not str(text.get("model_type", "")).startswith("gemma3"):
        length = max([_scaled(parameters, stated) for parameters in rope_dicts(text)], default=length)
    if length > MAX_CONTEXT:
        raise ModelFileError(
            f"The model's rope scaling gives {length} positions; at most {MAX_CONTEXT} are possible."
        )
    return length


def first_position(config: dict[str, Any]) -> int:
    """The position of a text's first token: RoBERTa and its kin count on from the padding token's id."""
    kind = config.get("model_type")
    if kind not in COUNTING_FROM_PADDING:
        return FIRST_POSITIONS.get(str(kind), 0)
    padding = config.get("pad_token_id")
    padding = 1 if padding is None else padding
    if type(padding) is not int or not 0 <= padding < MAX_CONTEXT:
        raise ModelFileError(f"The model's pad_token_id is {_short(padding)}; it must be a token id.")
    return padding + 1


def _scaled(parameters: dict[str, Any], stated: int) -> int:
    factor = parameters.get("factor")
    if factor is None or rope_type(parameters) not in ("linear", "dynamic", "yarn"):
        return stated
    return int((parameters.get("original_max_position_embeddings") or stated) * factor)
