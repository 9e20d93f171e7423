"""Tiny checkpoints and tokenizers, made where a test needs one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB_SIZE = 259
"""256 bytes and the special tokens."""


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges: one token per byte, special tokens at the end."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny_config(family: str, **overrides: Any) -> Any:
    """A config of odd sizes. An override `...` leaves a value out, for families whose configs lack it."""
    from transformers import AutoConfig

    values = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 48,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 1024,
        "eos_token_id": 258,
        "bos_token_id": None,
        "pad_token_id": None,
        "initializer_range": 0.3,
        **overrides,
    }
    return AutoConfig.for_model(family, **{name: value for name, value in values.items() if value is not ...})


def save_model(folder: Path, family: str = "llama", **overrides: Any) -> Path:
    """A random model of `tiny_config` with the tokenizer above. Returns the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(family, **overrides)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config).to(torch.float32)
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        is_trivial = "norm" in name or name.endswith("bias")  # all ones or zeros, which would hide much
        if is_trivial and weight.is_floating_point():
            weight.data += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder
