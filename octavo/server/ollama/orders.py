"""What Ollama does with models beside running them, and this server does not: clear words in its place."""

from __future__ import annotations

from typing import NoReturn

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.ollama.names import check_name
from octavo.server.ollama.schema.models import OllamaNameBody, OllamaStatus
from octavo.server.serving import Serving

REFUSED: dict[str, tuple[str, str]] = {
    "/api/push": ("POST", "Models are not published from here."),
    "/api/create": ("POST", "Models are not made here; start a server with the model: octavo serve MODEL."),
    "/api/copy": ("POST", "A model gets another name when the server starts: --served-model-name A B."),
    "/api/delete": ("DELETE", "Models are not deleted from here; remove the files on the server's machine."),
    "/api/blobs/{digest}": ("POST", "Files are not uploaded here; octavo serve takes a folder or a file."),
}
"""Path -> method, and what to do instead."""


def refuse(path: str) -> NoReturn:
    """Raise what there is to say of `path`."""
    raise RequestError(
        f"This server runs one model and manages none. {REFUSED[path][1]}", code=ErrorCode.UNSUPPORTED_VALUE
    )


def pull(serving: Serving, body: OllamaNameBody) -> OllamaStatus:
    """A model that is served is here; others are not fetched while serving."""
    try:
        check_name(serving, body.wanted)
    except RequestError:
        served = ", ".join(serving.model_names)
        raise RequestError(
            f"{quoted(body.wanted)} cannot be pulled: this server runs {served}. To run another model, start "
            "a server with it: octavo serve MODEL downloads what it needs.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="model",
        ) from None
    return OllamaStatus("success")
