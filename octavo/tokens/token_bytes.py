"""The bytes behind a token, by kind of vocabulary, as the vocabulary's own decoder would write them.

Lets text be decoded token by token in linear time; `spelling_of` returns None for decoders that need
to see neighbours, which the detokenizer then treats as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

Spelling = Callable[[str], bytes]

SPACE = "▁"


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes printable bytes as themselves and the others as characters from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


BYTE_ALPHABET = _byte_alphabet()


def spell_byte_level(token: str) -> bytes:
    try:
        return bytes([BYTE_ALPHABET[character] for character in token])
    except KeyError:
        return token.encode("utf-8", "replace")


def spell_sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.replace(SPACE, " ").encode("utf-8", "replace")


def decoder_steps(backend: BackendTokenizer) -> list[dict[str, Any]]:
    """The decoder as data, a sequence flattened."""
    if backend.decoder is None:
        return []
    steps: dict[str, Any] = json.loads(backend.decoder.__getstate__())
    nested = steps.get("decoders")
    return list(nested) if steps.get("type") == "Sequence" and isinstance(nested, list) else [steps]


def spelling_of(backend: BackendTokenizer) -> tuple[Spelling | None, bool]:
    """(how to spell a token, whether one space at the very start of a text is dropped)."""
    steps = decoder_steps(backend)
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return spell_byte_level, False
    if kinds == ["Metaspace"]:
        is_plain = steps[0].get("replacement") == SPACE
        return (spell_sentencepiece if is_plain else None), steps[0].get("prepend_scheme") != "never"
    if "ByteFallback" in kinds and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        replaces = [step for step in steps if step["type"] == "Replace"]
        strips = [step for step in steps if step["type"] == "Strip"]
        is_plain = all(
            step.get("pattern") == {"String": SPACE} and step.get("content") == " " for step in replaces
        ) and all(
            (step.get("content"), step.get("start"), step.get("stop")) == (" ", 1, 0) for step in strips
        )
        return (spell_sentencepiece if is_plain and len(replaces) == 1 else None), bool(strips)
    return None, False
