"""`metadata`: a caller's own labels on an object, kept and shown, never read by us."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

MAX_PAIRS = 16
MAX_KEY = 64
MAX_VALUE = 512


def _few(value: Any) -> Any:
    """Count before looking at pairs: a huge map must cost nothing."""
    if isinstance(value, dict) and len(value) > MAX_PAIRS:
        raise ValueError(f"has {len(value)} pairs; at most {MAX_PAIRS}")
    return value


def _short(value: dict[str, str] | None) -> dict[str, str] | None:
    if value is None:
        return None
    if any(len(key) > MAX_KEY for key in value):
        raise ValueError(f"keys may have {MAX_KEY} characters at most")
    if any(len(text) > MAX_VALUE for text in value.values()):
        raise ValueError(f"values may have {MAX_VALUE} characters at most")
    return value


Metadata = Annotated[dict[str, str] | None, BeforeValidator(_few), AfterValidator(_short)]
