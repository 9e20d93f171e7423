"""GGUF files of Ministral 3: stored as llama is, queries grow with their position.

Newer Mistrals whose queries do not grow have the same architecture.
"""

from __future__ import annotations

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.names import LLAMA_LAYER


def _log_multiplier(stated: float | None) -> dict[str, float]:
    """mscale_all_dim, where mscale is 1."""
    return {} if stated is None else {"mscale": 1.0, "mscale_all_dim": stated}


def _extend(config: Config, keys: Keys) -> None:
    """Raises ModelFileError where queries grow by steps that the file does not give the length of."""
    config["sliding_window"] = None
    growth, scaling = keys.number("attention.temperature_scale"), config["rope_scaling"]
    if growth is None:
        config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
        return
    if scaling is None or scaling["rope_type"] != "yarn":
        raise ModelFileError(
            f"The GGUF file has {keys.prefix}.attention.temperature_scale {growth} and no yarn, whose "
            "original length queries grow by. Such a model is not supported."
        )
    original = scaling["original_max_position_embeddings"]
    length = keys.count("attention.temperature_length", original)
    if length != original:
        raise ModelFileError(
            f"{keys.prefix}.attention.temperature_length is {length}, and yarn's original length {original}; "
            "models where they differ are not supported."
        )
    scaling["llama_4_scaling_beta"] = growth


MISTRAL3 = Architecture(
    class_name="Ministral3ForCausalLM",
    model_type="ministral3",
    layer_names=LLAMA_LAYER,
    has_interleaved_rope=True,
    log_multiplier=_log_multiplier,
    extend=_extend,
)
