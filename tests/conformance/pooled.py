"""Tiny random models that are pooled, made by transformers: encoders and decoders, bare and with heads.

A name stands for the case; `model_type` and overrides make the config.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import VOCAB_SIZE, save_tokenizer

LONGEST = 512
SPECIAL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {"max_position_embeddings": LONGEST}),
    "roberta": ("roberta", {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": (
        "xlm-roberta",
        {
            "max_position_embeddings": LONGEST + 6,
            "pad_token_id": 5,
            "type_vocab_size": 1,
            "hidden_act": "relu",
        },
    ),
    "camembert": ("camembert", {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1}),
    "distilbert": (
        "distilbert",
        {"dim": 48, "hidden_dim": 88, "n_layers": 3, "n_heads": 6, "max_position_embeddings": LONGEST},
    ),
    "mpnet": ("mpnet", {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1}),
    "electra": ("electra", {"max_position_embeddings": LONGEST, "embedding_size": 24}),
    "electra, wide embedding": ("electra", {"max_position_embeddings": LONGEST, "embedding_size": 48}),
    "deberta-v3": (
        "deberta-v2",
        {
            "max_position_embeddings": LONGEST,
            "position_biased_input": False,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_buckets": 32,
        },
    ),
    "deberta-v2, positions, no buckets": (
        "deberta-v2",
        {
            "max_position_embeddings": LONGEST,
            "type_vocab_size": 2,
            "relative_attention": True,
            "pos_att_type": "p2c|c2p",
            "share_att_key": True,
            "max_relative_positions": 100,
            "pooler_hidden_act": "relu",
        },
    ),
    "nomic_bert": ("nomic_bert", {"max_position_embeddings": LONGEST}),
    "gte": ("gte", {"max_position_embeddings": LONGEST}),
    "gte without segments": (
        "gte",
        {"max_position_embeddings": LONGEST, "type_vocab_size": 0, "hidden_act": "silu"},
    ),
    "modernbert": (
        "modernbert",
        {
            "max_position_embeddings": LONGEST,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "local_attention": 20,
            "global_attn_every_n_layers": 2,
            **SPECIAL_IDS,
        },
    ),
    "modernbert with biases": (
        "modernbert",
        {
            "max_position_embeddings": LONGEST,
            "num_attention_heads": 4,
            "local_attention": 33,
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
            "classifier_pooling": "mean",
            **SPECIAL_IDS,
        },
    ),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "llama": ("llama", {"tie_word_embeddings": False}),
    "mistral": ("mistral", {"sliding_window": 24}),
    "gemma3": ("gemma3_text", {"num_hidden_layers": 6, "sliding_window": 24, "sliding_window_pattern": 3}),
}


BOTH_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "eurobert": ("eurobert", {"max_position_embeddings": LONGEST, **SPECIAL_IDS, "mask_token_id": 3}),
    "gemma3": (
        "gemma3_text",
        {"num_hidden_layers": 4, "sliding_window": 24, "use_bidirectional_attention": True, "head_dim": 16},
    ),
    "qwen3": ("qwen3", {"is_causal": False}),
    "mistral": ("mistral", {"is_causal": False, "sliding_window": 9}),
}
"""Decoders that were made into encoders."""


def save_pooled(folder: Path, family: str, *, num_labels: int | None = None, **overrides: Any) -> Path:
    """A bare model, or one with a head for so many labels. Returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    values = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 48,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        **(
            {"num_key_value_heads": 2, "head_dim": 12}
            if family not in {kind for kind, _ in ENCODERS.values()}
            else {}
        ),
        **({} if num_labels is None else {"num_labels": num_labels}),
        **overrides,
    }
    torch.manual_seed(11)
    config = AutoConfig.for_model(family, **values)
    kind = AutoModel if num_labels is None else AutoModelForSequenceClassification
    model = kind.from_config(config).to(torch.float32)
    for name, weight in model.named_parameters():
        if "norm" in name.lower() or name.endswith(
            "bias"
        ):  # made as all ones or zeros, which would hide much
            weight.data += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    _mark_texts(folder)
    return folder


def save_modules(
    folder: Path, mode: str, *, normalizes: bool = True, prompts: dict[str, str] | None = None, **limits: Any
) -> Path:
    """The files that sentence-transformers writes beside a model."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalizes else [])]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling/config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    default = next(iter(prompts), None) if prompts else None
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": prompts or {}, "default_prompt_name": default})
    )
    return folder


def below_transformer(folder: Path) -> Path:
    """The same as older versions write it, for a transformer in 0_Transformer."""
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    name = "sentence_bert_config.json"
    (folder / name).rename(folder / "0_Transformer" / name)
    return folder


def _mark_texts(folder: Path) -> None:
    """[im_start] text [im_end] second [im_end], the second of type 1: as BERT's tokenizers do."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    ids = {name: tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>")}
    tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        pair="<|im_start|> $A <|im_end|> $B:1 <|im_end|>:1",
        special_tokens=list(ids.items()),
    )
    tokenizer.save(path)
