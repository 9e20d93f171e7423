"""GGUF files of families whose checkpoints fuse matrices as the files do: Phi 3 and 4, GLM 4."""

from __future__ import annotations

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.names import LLAMA_LAYER

_FUSED_MLP = {
    **{name: ours for name, ours in LLAMA_LAYER.items() if name != "ffn_gate"},
    "ffn_up": "mlp.gate_up_proj",
}


def _phi3(config: Config, keys: Keys) -> None:
    """A window of 0 stands for none."""
    config["sliding_window"] = keys.optional_count("attention.sliding_window")
    original = keys.optional_count("rope.scaling.original_context_length")
    config["original_max_position_embeddings"] = original or config["max_position_embeddings"]


def _glm4(config: Config, keys: Keys) -> None:
    if keys.metadata.get("glm4.rope.dimension_sections") is not None:
        raise ModelFileError(
            "glm4.rope.dimension_sections is set: the GGUF file holds the text part of a model that sees "
            "pictures, whose keys lie in another order. Only GLM 4 for text alone is supported."
        )
    config["attention_bias"] = keys.has_tensor("attn_q.bias")


FUSED: dict[str, Architecture] = {
    "phi3": Architecture(
        class_name="Phi3ForCausalLM",
        model_type="phi3",
        layer_names={
            "attn_qkv": "self_attn.qkv_proj",
            **{name: ours for name, ours in _FUSED_MLP.items() if name not in ("attn_q", "attn_k", "attn_v")},
        },
        may_rotate_part=True,
        extend=_phi3,
    ),
    "glm4": Architecture(
        class_name="Glm4ForCausalLM",
        model_type="glm4",
        layer_names={
            **_FUSED_MLP,
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        },
        may_rotate_part=True,
        extend=_glm4,
    ),
}
"""general.architecture -> how it is stored."""
