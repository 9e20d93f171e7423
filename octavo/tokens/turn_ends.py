"""Tokens that end an answer by their name alone: many GGUF files name only the token that ends a document.

A Gemma's file names `<eos>`, but its answers end with `<end_of_turn>`; a Phi 3's names `<|endoftext|>`, but
they end with `<|end|>`. In checkpoints of Hugging Face generation_config.json lists them all.
"""

from __future__ import annotations

from collections.abc import Sequence

NAMES = frozenset(
    {
        "<end_of_turn>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|call|>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|im_end|>",
        "<|return|>",
        "<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
    }
)
"""Not `</s>`: to some vocabularies it is a tag of HTML. Those that end with it say so."""
END_OF_MESSAGE = "<|end|>"
"""Where there are several kinds of ends (GPT-OSS), it stands between the messages of one answer."""
_BESIDE_IT = frozenset({"<|call|>", "<|return|>"})


def turn_ends(tokens: Sequence[str]) -> list[int]:
    """The ids of those that the vocabulary has."""
    found = {token: index for index, token in enumerate(tokens) if token in NAMES}
    if _BESIDE_IT.issubset(found):
        found.pop(END_OF_MESSAGE, None)
    return list(found.values())
