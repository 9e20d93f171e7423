"""GGUF files of encoders that embed: BERT, those computed like it (MiniLM, BGE, XLM-R) and NomicBERT."""

from __future__ import annotations

from dataclasses import replace

from octavo.base.errors import ModelFileError
from octavo.config.pooling import PoolingType
from octavo.weights.gguf.architecture import Architecture, Config
from octavo.weights.gguf.keys import Keys

_OUTSIDE = {
    "token_embd.weight": "embeddings.word_embeddings.weight",
    "position_embd.weight": "embeddings.position_embeddings.weight",
    "token_types.weight": "embeddings.token_type_embeddings.weight",
    "token_embd_norm.weight": "embeddings.LayerNorm.weight",
    "token_embd_norm.bias": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
_POOLINGS = {1: PoolingType.MEAN, 2: PoolingType.CLS, 3: PoolingType.LAST}
"""Values of pooling_type; 0 says nothing."""
_RANK = 4
_TOKENIZERS = ("bert", "t5")
"""BERT's and XLM-R's."""


def _extend(config: Config, keys: Keys) -> None:
    """Raises ModelFileError for rerankers and for tokenizers of another kind, such as RoBERTa's.

    XLM-R's kin are BERTs here: converters cut the rows of the positions that come before a text's first.
    """
    tokenizer = keys.metadata.get("tokenizer.ggml.model")
    if tokenizer not in _TOKENIZERS:
        raise ModelFileError(
            f"The GGUF file holds an encoder with a tokenizer of kind {str(tokenizer)[:40]!r}; those with "
            f"{' and '.join(map(repr, _TOKENIZERS))} are supported. It can be served from its safetensors "
            "files."
        )
    pooling = read_pooling(config, keys)
    if pooling == _RANK or "cls.weight" in keys.tensor_names or "cls.output.weight" in keys.tensor_names:
        raise ModelFileError(
            "The GGUF file holds an encoder that scores. Such files lack a layer of BERT's head (its "
            "pooler); serve it from its safetensors files."
        )
    has_segments = "token_types.weight" in keys.tensor_names
    config |= {
        "hidden_act": "gelu",
        "type_vocab_size": keys.of("tokenizer.ggml").count("token_type_count") if has_segments else 0,
    }


def read_pooling(config: Config, keys: Keys) -> int | None:
    """Adds how the file says that states are pooled. Its own number; None: it does not say."""
    pooling = keys.optional_count("pooling_type")
    if pooling is None or pooling == _RANK:
        return pooling
    if pooling not in _POOLINGS:
        raise ModelFileError(f"{keys.prefix}.pooling_type is {pooling}; 0 to 3 are supported.")
    config["gguf_pooling"] = _POOLINGS[pooling].value
    return pooling


BERT = Architecture(
    class_name="BertModel",
    model_type="bert",
    layer_names=_LAYER,
    layers="encoder.layer",
    outside_names=_OUTSIDE,
    epsilon="layer_norm_eps",
    extend=_extend,
)


def _extend_nomic(config: Config, keys: Keys) -> None:
    _extend(config, keys)
    config["hidden_act"] = "silu"


NOMIC_BERT = replace(
    BERT,
    class_name="NomicBertModel",
    model_type="nomic_bert",
    layer_names={
        "attn_qkv": "attn.Wqkv",
        "attn_output": "attn.out_proj",
        "attn_output_norm": "norm1",
        "ffn_up": "mlp.fc11",
        "ffn_gate": "mlp.fc12",
        "ffn_down": "mlp.fc2",
        "layer_output_norm": "norm2",
    },
    layers="encoder.layers",
    outside_names={
        "token_embd.weight": "embeddings.word_embeddings.weight",
        "token_types.weight": "embeddings.token_type_embeddings.weight",
        "token_embd_norm.weight": "emb_ln.weight",
        "token_embd_norm.bias": "emb_ln.bias",
    },
    extend=_extend_nomic,
)
