"""GGUF files of families with layer norms: GPT-2, NeoX, Phi 2, BLOOM, MPT, Falcon, StableLM and others.

Files do not say which activation their MLPs have: it is the one of the family. What is fused, turned or put
in another order than in Hugging Face's checkpoints shows itself as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.names import LLAMA_LAYER, OUTSIDE_LAYERS
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.gguf.views import Order, View, Views


def _outside(
    embedding: str = "model.embed_tokens", norm: str = "model.norm", head: str = "lm_head"
) -> Mapping[str, str]:
    names = {"token_embd": embedding, "output_norm": norm, "output": head}
    return MappingProxyType(
        {f"{name}.{end}": f"{ours}.{end}" for name, ours in names.items() for end in ("weight", "bias")}
    )


_PLAIN_MLP = {name: ours for name, ours in LLAMA_LAYER.items() if name != "ffn_gate"}
_GPT2_LAYER = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_NEOX_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_FALCON_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attention.query_key_value",
    "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_BLOOM_LAYER = {**_FALCON_LAYER, "ffn_norm": "post_attention_layernorm"}
_MPT_LAYER = {
    "attn_norm": "norm_1",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2",
    "ffn_up": "ffn.up_proj",
    "ffn_down": "ffn.down_proj",
}
_FALCON_TWO_NORMS = {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}
"""Where the branches have a norm each: the first name is that of the MLP's."""
_PHI2_LAYER = {
    **{name: ours for name, ours in _PLAIN_MLP.items() if name != "ffn_norm"},
    "attn_output": "self_attn.dense",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
_STARCODER2_LAYER = {**_PLAIN_MLP, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
_COHERE_LAYER = {name: ours for name, ours in LLAMA_LAYER.items() if name != "ffn_norm"}


def _turned(views: Views, tensor: GGUFTensor, name: str | None, config: Config) -> bool:  # noqa: ARG001
    """GPT-2's checkpoints hold matrices as [I, O], files as [O, I]."""
    if name is None or len(tensor.shape) != 2 or ".h." not in name:
        return False
    views[name] = View.as_shape(tensor, tensor.shape[::-1], lambda whole: whole.t())
    return True


def _head_by_head(views: Views, tensor: GGUFTensor, name: str | None, config: Config) -> bool:
    """Checkpoints hold queries, key and value of one KV head after the other; files all queries first."""
    if name is None or ".query_key_value." not in name:
        return False
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rows = (heads + 2 * kv_heads) * config["head_dim"]
    if tensor.shape[0] != rows:
        raise ModelFileError(
            f"The GGUF tensor {tensor.name!r} has {tensor.shape[0]} rows; {heads} heads, {kv_heads} keys "
            f"and {kv_heads} values of {config['head_dim']} are {rows}."
        )
    views[name] = View.of(tensor, order=_by_kv_head(heads, kv_heads, config["head_dim"]))
    return True


def _by_kv_head(heads: int, kv_heads: int, head_dim: int) -> Order:
    rows = np.arange((heads + 2 * kv_heads) * head_dim)
    queries, keys, values = np.split(rows, [heads * head_dim, (heads + kv_heads) * head_dim])
    return np.concatenate([part.reshape(kv_heads, -1) for part in (queries, keys, values)], axis=1).flatten()


def _two_norms(views: Views, tensor: GGUFTensor, name: str | None, config: Config) -> bool:
    """Falcon calls its norms by what they are for, where there are two."""
    if config.get("num_ln_in_parallel_attn") == 2:
        parts = tensor.name.split(".")
        ours = _FALCON_TWO_NORMS.get(parts[2]) if len(parts) == 4 else None
        if ours is not None:
            views[f"transformer.h.{parts[1]}.{ours}.{parts[3]}"] = View.of(tensor)
            return True
    return _head_by_head(views, tensor, name, config)


def _gpt2(config: Config, keys: Keys) -> None:  # noqa: ARG001
    config["activation_function"] = "gelu_new"


def _gpt_neox(config: Config, keys: Keys) -> None:
    config["hidden_act"] = "gelu"
    config["attention_bias"] = keys.has_tensor("attn_qkv.bias")
    config["use_parallel_residual"] = keys.flag("use_parallel_residual", True)


def _phi2(config: Config, keys: Keys) -> None:  # noqa: ARG001
    config["hidden_act"] = "gelu_new"


def _mpt(config: Config, keys: Keys) -> None:
    attention = {
        "alibi": keys.number("attention.max_alibi_bias") is not None,
        "alibi_bias_max": keys.number("attention.max_alibi_bias"),
        "clip_qkv": keys.number("attention.clamp_kqv"),
        "qk_ln": keys.has_tensor("attn_q_norm.weight"),
    }
    config |= {"attn_config": attention, "no_bias": not keys.has_tensor("attn_norm.bias")}


def _falcon(config: Config, keys: Keys) -> None:
    if keys.has_tensor("attn_qkv.bias"):
        raise ModelFileError(
            "The GGUF file holds a Falcon with biases: of the kind that attends by ALiBi, which the file "
            "does not say. From GGUF only Falcons without are supported: load the model's own folder."
        )
    num_norms = 2 if keys.has_tensor("attn_norm_2.weight") else 1
    is_new = num_norms == 2 or config["num_key_value_heads"] > 1
    config |= {"new_decoder_architecture": is_new, "multi_query": True, "parallel_attn": True, "bias": False}
    config |= {"num_ln_in_parallel_attn": num_norms, "activation": "gelu", "alibi": False}


def _stablelm(config: Config, keys: Keys) -> None:
    config["use_qkv_bias"] = keys.has_tensor("attn_q.bias")
    config["use_parallel_residual"] = keys.flag("use_parallel_residual", False)


def _starcoder2(config: Config, keys: Keys) -> None:  # noqa: ARG001
    config["hidden_act"] = "gelu_pytorch_tanh"
    config["use_bias"] = config["attention_bias"]


def _nemotron(config: Config, keys: Keys) -> None:  # noqa: ARG001
    config["hidden_act"] = "relu2"


def _cohere(config: Config, keys: Keys) -> None:
    scale = keys.number("logit_scale")
    if scale is None:
        raise ModelFileError("The GGUF file has no 'command-r.logit_scale', which Command R needs.")
    config["logit_scale"] = scale


LAYER_NORMS: dict[str, Architecture] = {
    "gpt2": Architecture(
        class_name="GPT2LMHeadModel",
        model_type="gpt2",
        layer_names=_GPT2_LAYER,
        layers="transformer.h",
        outside_names={
            **_outside("transformer.wte", "transformer.ln_f"),
            "position_embd.weight": "transformer.wpe.weight",
        },
        epsilon="layer_norm_epsilon",
        add_own_tensor=_turned,
        extend=_gpt2,
    ),
    "gptneox": Architecture(
        class_name="GPTNeoXForCausalLM",
        model_type="gpt_neox",
        layer_names=_NEOX_LAYER,
        layers="gpt_neox.layers",
        outside_names=_outside("gpt_neox.embed_in", "gpt_neox.final_layer_norm", "embed_out"),
        epsilon="layer_norm_eps",
        may_rotate_part=True,
        add_own_tensor=_head_by_head,
        extend=_gpt_neox,
    ),
    "phi2": Architecture(
        class_name="PhiForCausalLM",
        model_type="phi",
        layer_names=_PHI2_LAYER,
        outside_names=_outside(norm="model.final_layernorm"),
        epsilon="layer_norm_eps",
        may_rotate_part=True,
        extend=_phi2,
    ),
    "bloom": Architecture(
        class_name="BloomForCausalLM",
        model_type="bloom",
        layer_names=_BLOOM_LAYER,
        layers="transformer.h",
        outside_names={
            **_outside("transformer.word_embeddings", "transformer.ln_f"),
            "token_embd_norm.weight": "transformer.word_embeddings_layernorm.weight",
            "token_embd_norm.bias": "transformer.word_embeddings_layernorm.bias",
        },
        epsilon="layer_norm_epsilon",
        add_own_tensor=_head_by_head,
    ),
    "mpt": Architecture(
        class_name="MptForCausalLM",
        model_type="mpt",
        layer_names=_MPT_LAYER,
        layers="transformer.blocks",
        outside_names=_outside("transformer.wte", "transformer.norm_f"),
        epsilon="layer_norm_epsilon",
        extend=_mpt,
    ),
    "falcon": Architecture(
        class_name="FalconForCausalLM",
        model_type="falcon",
        layer_names=_FALCON_LAYER,
        layers="transformer.h",
        outside_names=_outside("transformer.word_embeddings", "transformer.ln_f"),
        epsilon="layer_norm_epsilon",
        add_own_tensor=_two_norms,
        extend=_falcon,
    ),
    "stablelm": Architecture(
        class_name="StableLmForCausalLM",
        model_type="stablelm",
        layer_names=LLAMA_LAYER,
        outside_names=_outside(),
        epsilon="layer_norm_eps",
        may_rotate_part=True,
        extend=_stablelm,
    ),
    "starcoder2": Architecture(
        class_name="Starcoder2ForCausalLM",
        model_type="starcoder2",
        layer_names=_STARCODER2_LAYER,
        outside_names=_outside(),
        epsilon="norm_epsilon",
        extend=_starcoder2,
    ),
    "nemotron": Architecture(
        class_name="NemotronForCausalLM",
        model_type="nemotron",
        layer_names=_PLAIN_MLP,
        outside_names=_outside(),
        epsilon="norm_eps",
        may_rotate_part=True,
        norm_offset=1.0,
        extend=_nemotron,
    ),
    "command-r": Architecture(
        class_name="CohereForCausalLM",
        model_type="cohere",
        layer_names=_COHERE_LAYER,
        outside_names=OUTSIDE_LAYERS,
        epsilon="layer_norm_eps",
        extend=_cohere,
    ),
}
"""general.architecture -> how it is stored."""
