"""What a checkpoint says about pooling: in its config, and in sentence-transformers' files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ConfigError, ModelFileError
from octavo.base.files import has_file
from octavo.config.pooling import PoolingFacts, PoolingType
from octavo.weights.config_json import text_config
from octavo.weights.encoder_shapes import CLASSIFIES
from octavo.weights.label_scores import ENCODERS, by_tokens, classifying, sees_both_ways
from octavo.weights.module_folders import MODULES
from octavo.weights.pooling_modules import MAX_DENSE_WIDTH, with_modules
from octavo.weights.token_scores import names_tokens, scores_by_name

if TYPE_CHECKING:
    from octavo.config.model import ModelConfig
    from octavo.weights.checkpoint import Checkpoint


def made_for_pooling(checkpoint: Checkpoint) -> bool:
    """Whether the model was made to be pooled, not to write."""
    return not can_write(checkpoint) or has_modules(_folder(checkpoint)) or names_tokens(checkpoint.config)


def is_pooled(checkpoint: Checkpoint, model: ModelConfig) -> bool:
    """Whether the model will be pooled: as the user wishes, else as it was made to be."""
    return model.runner == "pooling" or (model.runner == "auto" and made_for_pooling(checkpoint))


def can_write(checkpoint: Checkpoint) -> bool:
    """Whether it has what predicting tokens needs, whatever it was made for."""
    config = checkpoint.config
    has_head = not is_bare(config) and not architecture_of(config).endswith(CLASSIFIES)
    return has_head and not sees_both_ways(config)


def pooling_of(checkpoint: Checkpoint, model: ModelConfig) -> PoolingFacts:
    """How to pool this model, the user's wish included. Raises ModelFileError or ConfigError."""
    if names_tokens(checkpoint.config):
        facts = by_tokens(
            checkpoint.config, *scores_by_name(checkpoint.config, checkpoint.tokenizer_source())
        )
    else:
        facts = read_pooling(checkpoint.config, _folder(checkpoint))
    if model.pooling_type is None:
        return facts
    if facts.task != "embed":
        raise ConfigError(
            "pooling_type is for models that embed; the head of this one says what it pools.",
            param="pooling_type",
        )
    if not facts.is_encoder and model.pooling_type == PoolingType.CLS:
        raise ConfigError(
            "pooling_type is cls, but a decoder's first token sees nothing of the text. Use last or mean.",
            param="pooling_type",
        )
    return replace(facts, pooling=PoolingType(model.pooling_type), why_pooling="as asked for")


def read_pooling(config: dict[str, Any], folder: Path | None = None) -> PoolingFacts:
    """From a Hugging Face config and, if there is a folder, from the files in it."""
    if architecture_of(config).endswith(CLASSIFIES):
        return classifying(config)
    facts = _usual(config)
    return with_modules(facts, config, folder) if folder is not None and has_modules(folder) else facts


def has_modules(folder: Path | None) -> bool:
    """Whether sentence-transformers wrote this folder, for a model that embeds."""
    return folder is not None and has_file(folder, MODULES)


def _folder(checkpoint: Checkpoint) -> Path | None:
    return checkpoint.path if checkpoint.path.is_dir() else None


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first that the config names; empty where it names none."""
    names = config.get("architectures") or []
    return str(names[0]) if isinstance(names, list) and names else ""


def is_bare(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is a backbone without any head."""
    name = architecture_of(config)
    return name.endswith("Model") and not name.endswith("LMHeadModel")


def _usual(config: dict[str, Any]) -> PoolingFacts:
    """Where no module says how. A GGUF file may; else an encoder's first token was made for this, and a
    decoder's last knows most.
    """
    pooling = _of_gguf(config)
    why = "as the GGUF file says"
    if pooling is None:
        pooling, why = _usual_pooling(config)
        why += "; no file of the model says how"
    dense = _dense_of_gguf(config)
    return PoolingFacts(
        task="embed",
        pooling=pooling,
        why_pooling=why,
        num_outputs=dense[-1][2] if dense else _width(config),
        stored_dense=dense,
        is_encoder=sees_both_ways(config),
        normalizes=True,
    )


def _usual_pooling(config: Mapping[str, Any]) -> tuple[PoolingType, str]:
    if config.get("model_type") in ENCODERS:
        return PoolingType.CLS, "usual for encoders"
    if sees_both_ways(config):
        return PoolingType.MEAN, "usual for decoders whose tokens see all others"
    return PoolingType.LAST, "the only token of a decoder that has seen all others"


def _of_gguf(config: dict[str, Any]) -> PoolingType | None:
    """What the reader of GGUF files put there."""
    stated = config.get("gguf_pooling")
    if stated is not None and stated not in tuple(PoolingType):
        raise ModelFileError(
            f"The model's gguf_pooling is {str(stated)[:40]!r}; known: {', '.join(PoolingType)}."
        )
    return None if stated is None else PoolingType(stated)


def _dense_of_gguf(config: dict[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """What the reader of GGUF files put there, each layer as wide as the one before it gives."""
    stated = config.get("gguf_dense") or {}
    if not isinstance(stated, dict):
        raise ModelFileError(f"The model's gguf_dense is {str(stated)[:40]}; it must be an object.")
    dense: list[tuple[str, int, int]] = []
    comes = _width(config)
    for name, widths in stated.items():
        is_pair = isinstance(widths, list) and [type(width) for width in widths] == [int, int]
        if not is_pair or not 1 <= widths[1] <= MAX_DENSE_WIDTH:
            raise ModelFileError(
                f"The layer {str(name)[:40]!r} of the model has the widths {str(widths)[:40]}; two numbers "
                f"from 1 to {MAX_DENSE_WIDTH} are possible."
            )
        if widths[0] != comes:
            raise ModelFileError(
                f"The layer {str(name)[:40]!r} of the model takes {widths[0]} numbers; {comes} come in."
            )
        comes = widths[1]
        dense.append((str(name), widths[0], comes))
    return tuple(dense)


def _width(config: dict[str, Any]) -> int:
    text = text_config(config)
    width = text.get("hidden_size") or text.get("dim")
    if not isinstance(width, int):
        raise ModelFileError("The model's config has no hidden_size.")
    return width
