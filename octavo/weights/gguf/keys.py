"""Typed access to the metadata of one architecture: `keys.count("block_count")` reads "llama.block_count"."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from typing import Any

from octavo.base.errors import ModelFileError

NO_TOKEN = 2**32 - 1
"""How some files say that a special token does not exist."""


class Keys:
    """Metadata with the architecture's prefix. Every failure names the key."""

    def __init__(self, metadata: Mapping[str, Any], prefix: str, tensor_names: Collection[str] = ()) -> None:
        """tensor_names: of the file's, which tell some things that metadata do not."""
        self.metadata = metadata
        self.prefix = prefix
        self.tensor_names = tensor_names

    def _find(self, key: str) -> tuple[str, Any]:
        full = f"{self.prefix}.{key}"
        value = self.metadata.get(full)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]  # one value per layer, all the same
        return full, value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1; without a default it must be there."""
        full, value = self._find(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise ModelFileError(f"The GGUF file has no {full!r}, which the model cannot do without.")
        if isinstance(value, list):
            raise ModelFileError(f"{full!r} differs from layer to layer; such models are not supported.")
        if type(value) is not int or value < 1:
            raise ModelFileError(f"{full!r} is {str(value)[:40]}; it must be a whole number of at least 1.")
        return value

    def by_layer(self, key: str) -> list[int] | None:
        """Whole numbers, a value for each layer; None where the key is missing or one value is for all."""
        full = f"{self.prefix}.{key}"
        value = self.metadata.get(full)
        if not isinstance(value, list):
            return None
        if any(type(item) is not int or item < 0 for item in value):
            raise ModelFileError(f"{full!r} is {str(value)[:40]}; it must be whole numbers from 0 on.")
        return value

    def count_where_any(self, key: str, default: int) -> int:
        """Like `count`, where layers may have 0 instead: those that have nothing of the kind."""
        counts = {count for count in self.by_layer(key) or () if count}
        return counts.pop() if len(counts) == 1 else self.count(key, default)

    def has_tensor(self, ending: str) -> bool:
        """Whether any layer has it."""
        return any(name.endswith(f".{ending}") for name in self.tensor_names)

    def flag(self, key: str, default: bool) -> bool:
        value = self._find(key)[1]
        return default if value is None else bool(value)

    def optional_count(self, key: str) -> int | None:
        """Like `count`; None where the key is missing or 0."""
        return None if self._find(key)[1] in (None, 0) else self.count(key)

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite number over 0, or the default where the key is missing."""
        full, value = self._find(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise ModelFileError(f"{full!r} is {str(value)[:40]}; it must be a finite number over 0.")
        return shortest(float(value))

    def text(self, key: str) -> str | None:
        full, value = self._find(key)
        if value is not None and not isinstance(value, str):
            raise ModelFileError(f"{full!r} must be a string.")
        return value

    def token(self, key: str, vocab_size: int) -> int | None:
        """A token id inside the vocabulary, or None where the file has none."""
        full, value = self._find(key)
        if value is None or value in (-1, NO_TOKEN):
            return None
        if type(value) is not int or not 0 <= value < vocab_size:
            raise ModelFileError(f"{full!r} is {str(value)[:40]}; the vocabulary has {vocab_size} tokens.")
        return value


def shortest(value: float) -> float:
    """Undo the widening of a float32: 9.999999747378752e-06 was written as 1e-05."""
    for digits in range(1, 10):
        candidate = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", candidate) == struct.pack("<f", value):
                return candidate
        except OverflowError:
            return value
    return value
