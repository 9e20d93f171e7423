"""Where a tokenizer comes from. Made by `weights/`, read by `tokens/`; plain data, nothing is opened here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TokenizerSource:
    """Exactly one of the two is set."""

    folder: Path | None = None
    """Holds tokenizer.json and its neighbours, as Hugging Face checkpoints do."""
    gguf_metadata: Mapping[str, Any] | None = None
    """The tokenizer.* and general.* keys of a GGUF file, values as plain Python."""
