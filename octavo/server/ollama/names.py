"""Model names: Ollama's end in a tag, and ':latest' is meant where there is none."""

from __future__ import annotations

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.serving import Serving

LATEST = ":latest"


def listed_name(name: str) -> str:
    """A served name as Ollama lists it, with its tag."""
    return name if ":" in name.rpartition("/")[2] else name + LATEST


def check_name(serving: Serving, name: str) -> str:
    """The served name that is meant, in any case and with or without ':latest'. Raises MODEL_NOT_FOUND."""
    known = {served.lower(): served for served in reversed(serving.model_names)}
    wanted = name.lower()
    for candidate in (wanted, wanted.removesuffix(LATEST), wanted + LATEST):
        if candidate in known:
            return known[candidate]
    served = ", ".join(serving.model_names)
    raise RequestError(
        f"model {quoted(name)} not found: this server has {served}. Other models are served by starting "
        "another server (octavo serve MODEL).",
        code=ErrorCode.MODEL_NOT_FOUND,
        param="model",
    )
