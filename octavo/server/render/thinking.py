"""reasoning_effort in the words that a model's template knows."""

from __future__ import annotations

import re
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_OFF = ("none", "minimal", "low")
_KNOWS_EFFORT = re.compile(r"\breasoning_effort\b")
_SWITCHES = {
    "enable_thinking": re.compile(r"\benable_thinking\b"),
    "thinking": re.compile(r"\b(?:if|not|and|or|set)\s+thinking\b|\bthinking\s+is\s+(?:not\s+)?defined\b"),
}


def effort_kwargs(effort: str | None, template: str | None) -> dict[str, Any]:
    """Variables for the template. One that only knows on and off gets off for low and less. Raises
    RequestError for what is no effort."""
    if effort is None:
        return {}
    if effort not in EFFORTS:
        raise RequestError(
            f"reasoning_effort is {quoted(effort)}; it must be one of {', '.join(EFFORTS)}. Words of a "
            "template's own go into chat_template_kwargs.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="reasoning_effort",
        )
    known: dict[str, Any] = {"reasoning_effort": effort}
    source = template or ""
    if _KNOWS_EFFORT.search(source) and effort != "none":
        return known
    for name, pattern in _SWITCHES.items():
        if pattern.search(source):
            known[name] = effort not in _OFF
    return known
