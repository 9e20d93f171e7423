"""The GGUF architectures we read: a line of the table each, plus what only that one has in its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.weights.gguf import names
from octavo.weights.gguf.keys import Keys

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one architecture is stored in GGUF and called by Hugging Face."""

    class_name: str
    model_type: str
    layer_names: Mapping[str, str]
    has_interleaved_rope: bool = False
    """q and k rows are stored permuted, for rotation of neighbouring pairs."""
    norm_offset: float = 0.0
    """What the file adds to the weights of every norm."""
    extend: Callable[[Config, Keys], None] | None = None
    """Adds config entries of this architecture alone."""


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


def _maybe_sliding_window(config: Config, keys: Keys) -> None:
    """Mistral is stored as llama; only its window tells it apart."""
    window = keys.optional_count("attention.sliding_window")
    if window is not None:
        config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def _gemma3(config: Config, keys: Keys) -> None:
    layers, heads, pattern = config["num_hidden_layers"], config["num_attention_heads"], 6
    is_27b = layers == 62
    config |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config["hidden_size"] // heads if is_27b else config["head_dim"],
        "rope_local_base_freq": keys.number("rope.freq_base_swa", 10000.0),
        "sliding_window": keys.count("attention.sliding_window"),
        "layer_types": [
            "full_attention" if (index + 1) % pattern == 0 else "sliding_attention" for index in range(layers)
        ],
    }
    softcap = keys.number("final_logit_softcapping")
    if softcap is not None:
        config["final_logit_softcapping"] = softcap


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        class_name="LlamaForCausalLM",
        model_type="llama",
        layer_names=names.LLAMA_LAYER,
        has_interleaved_rope=True,
        extend=_maybe_sliding_window,
    ),
    "qwen2": Architecture(class_name="Qwen2ForCausalLM", model_type="qwen2", layer_names=names.LLAMA_LAYER),
    "qwen3": Architecture(class_name="Qwen3ForCausalLM", model_type="qwen3", layer_names=names.QK_NORM_LAYER),
    "gemma3": Architecture(
        class_name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        layer_names=names.GEMMA3_LAYER,
        norm_offset=1.0,
        extend=_gemma3,
    ),
}
"""general.architecture -> how it is stored."""
