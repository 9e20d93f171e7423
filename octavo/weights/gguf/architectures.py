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


def _gemma(config: Config, keys: Keys) -> None:  # noqa: ARG001
    config["hidden_act"] = config["hidden_activation"] = "gelu_pytorch_tanh"


def _gemma2(config: Config, keys: Keys) -> None:
    _gemma(config, keys)
    _windows(config, keys, layers_of_27b=46, period=2)
    config["attn_logit_softcapping"] = keys.number("attn_logit_softcapping", 50.0)
    config["final_logit_softcapping"] = keys.number("final_logit_softcapping", 30.0)


def _gemma3(config: Config, keys: Keys) -> None:
    _gemma(config, keys)
    _windows(config, keys, layers_of_27b=62, period=6)
    config["rope_local_base_freq"] = keys.number("rope.freq_base_swa", 10000.0)
    softcap = keys.number("final_logit_softcapping")
    if softcap is not None:
        config["final_logit_softcapping"] = softcap


def _windows(config: Config, keys: Keys, *, layers_of_27b: int, period: int) -> None:
    """Files do not say what scores are divided by; only a family's largest model departs from head_dim."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    is_27b = layers == layers_of_27b
    config["query_pre_attn_scalar"] = config["hidden_size"] // heads if is_27b else config["head_dim"]
    config["sliding_window"] = keys.count("attention.sliding_window")
    config["layer_types"] = [
        "full_attention" if (index + 1) % period == 0 else "sliding_attention" for index in range(layers)
    ]


def _granite(config: Config, keys: Keys) -> None:
    for ours, theirs in (
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
    ):
        value = keys.number(theirs)
        if value is None:
            raise ModelFileError(f"The GGUF file has no '{keys.prefix}.{theirs}', which Granite needs.")
        config[ours] = value


def _olmo2(config: Config, keys: Keys) -> None:  # noqa: ARG001
    window = keys.optional_count("attention.sliding_window")
    if window is not None:
        raise ModelFileError(
            f"The GGUF file holds an OLMo 3, with windows of {window}; of this kind OLMo 2 is supported. "
            "OLMo 3 can be served from its safetensors files."
        )


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
    "smollm3": Architecture(
        class_name="SmolLM3ForCausalLM",
        model_type="smollm3",
        layer_names=names.LLAMA_LAYER,
        has_interleaved_rope=True,
    ),
    "granite": Architecture(
        class_name="GraniteForCausalLM",
        model_type="granite",
        layer_names=names.LLAMA_LAYER,
        has_interleaved_rope=True,
        extend=_granite,
    ),
    "olmo2": Architecture(
        class_name="Olmo2ForCausalLM",
        model_type="olmo2",
        layer_names=names.OLMO2_LAYER,
        extend=_olmo2,
    ),
    "gemma": Architecture(
        class_name="GemmaForCausalLM",
        model_type="gemma",
        layer_names=names.LLAMA_LAYER,
        norm_offset=1.0,
        extend=_gemma,
    ),
    "gemma2": Architecture(
        class_name="Gemma2ForCausalLM",
        model_type="gemma2",
        layer_names=names.GEMMA2_LAYER,
        norm_offset=1.0,
        extend=_gemma2,
    ),
    "gemma3": Architecture(
        class_name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        layer_names=names.GEMMA3_LAYER,
        norm_offset=1.0,
        extend=_gemma3,
    ),
}
"""general.architecture -> how it is stored."""
