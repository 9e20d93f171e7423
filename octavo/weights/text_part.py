"""TextPart: a checkpoint of a model that sees pictures, as one of the model for text within it.

Its tensors go by the names of that model; those of pictures and sound are left out. In a text alone all
of a token's coordinates are its position, so ropes in several coordinates (mrope) are plain ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError
from octavo.tokens.source import TokenizerSource
from octavo.weights.config_json import check_config
from octavo.weights.shapes import check_shapes

if TYPE_CHECKING:
    import torch

    from octavo.ops.stored import StoredMatrix
    from octavo.weights.checkpoint import Checkpoint
    from octavo.weights.transfer import OnProgress

logger = logging.getLogger(__name__)

SEES_PICTURES = (
    "Gemma3ForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
)
_TEXT_MODELS = {
    "gemma3_text": ("Gemma3ForCausalLM", "gemma3_text"),
    "ministral3": ("Ministral3ForCausalLM", "ministral3"),
    "mistral": ("MistralForCausalLM", "mistral"),
    "qwen2_vl": ("Qwen2ForCausalLM", "qwen2"),
    "qwen2_vl_text": ("Qwen2ForCausalLM", "qwen2"),
    "qwen2_5_vl": ("Qwen2ForCausalLM", "qwen2"),
    "qwen2_5_vl_text": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3_vl_text": ("Qwen3ForCausalLM", "qwen3"),
}
"""model_type of the part -> architecture and model_type of the model that it is."""
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "hidden_activation": "gelu_pytorch_tanh",
    }
}
"""What Gemma's own configs leave out."""
_OF_BOTH = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "dtype", "torch_dtype")
"""Entries that configs may have outside of the part."""
_PREFIXES = {"model.language_model.": "model.", "language_model.model.": "model.", "language_model.": ""}
_PLAIN_NAMES = ("lm_head.", "model.embed_tokens.", "model.layers.", "model.norm.")


def text_only(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of the model for text; None where the model takes nothing else. Raises ModelFileError."""
    stated = config.get("architectures")
    if not isinstance(stated, list) or not any(name in SEES_PICTURES for name in stated):
        return None
    part = config.get("text_config")
    part = part if isinstance(part, dict) else config  # Qwen 2.5's own has its entries beside the pictures'
    kind = str(part.get("model_type"))
    if kind not in _TEXT_MODELS:
        raise ModelFileError(
            f"The text part of this {stated[0]} is of the type {kind[:80]!r}; of models that see pictures "
            f"those are served, for text alone, whose text part is one of {', '.join(_TEXT_MODELS)}."
        )
    architecture, model_type = _TEXT_MODELS[kind]
    shared = {name: config[name] for name in _OF_BOTH if config.get(name) is not None}
    own = {name: value for name, value in part.items() if name != "vision_config"}
    made = {**_DEFAULTS.get(kind, {}), **shared, **own, "architectures": [architecture]}
    made["model_type"] = model_type
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(made.get(name), dict):
            made[name] = _plain_rope(made[name])
    check_config(made)
    return made


def _plain_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {rope.get("type"), rope.get("rope_type")}
    if "mrope" not in kinds:
        return dict(rope)
    return {**{name: value for name, value in rope.items() if name != "type"}, "rope_type": "default"}


def name_in_text(name: str) -> str | None:
    """What the model for text calls a tensor; None for those that it does not have."""
    for prefix, short in _PREFIXES.items():
        if name.startswith(prefix):
            return short + name.removeprefix(prefix)
    return name if name.startswith(_PLAIN_NAMES) else None


class TextPart:
    """A Checkpoint over another one."""

    def __init__(self, whole: Checkpoint, config: dict[str, Any]) -> None:
        """config: by text_only. Raises ModelFileError where the tensors are not those of it."""
        self._whole = whole
        self._names = {
            short: name for name in whole.tensor_names() if (short := name_in_text(name)) is not None
        }
        self.name = whole.name
        self.path: Path = whole.path
        self.format = whole.format
        # Configs leave it out, or say it of either part; the files know.
        self.config = {**config, "tie_word_embeddings": "lm_head.weight" not in self._names}
        self.generation_config = whole.generation_config
        self.stored_dtype = whole.stored_dtype
        check_shapes(self.config, self._names, self.shape)
        logger.info(
            "This model sees pictures. Octavo serves its part for text, %s.", self.config["architectures"][0]
        )

    def tensor_names(self) -> list[str]:
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._whole.shape(self._find(name))

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self._whole.load(self._find(name), dtype)

    def stored_kind(self, name: str) -> str:
        return self._whole.stored_kind(self._find(name))

    def stored_matrix(self, name: str, *, is_turned: bool = False) -> StoredMatrix | None:
        return self._whole.stored_matrix(self._find(name), is_turned=is_turned)

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: OnProgress | None = None
    ) -> None:
        self._whole.upload([(self._find(name), target) for name, target in targets], on_progress)

    def tokenizer_source(self) -> TokenizerSource:
        return self._whole.tokenizer_source()

    def close(self) -> None:
        self._whole.close()

    def _find(self, name: str) -> str:
        if name not in self._names:
            raise ModelFileError(f"The checkpoint has no tensor {name!r}.")
        return self._names[name]
