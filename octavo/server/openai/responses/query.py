"""Parameters of a URL's query, checked as strictly as those of a body."""

from __future__ import annotations

from starlette.requests import Request

from octavo.base.errors import RequestError

MAX_DIGITS = 16


def flag_in(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false"):
        raise RequestError(f"{name} must be true or false.", param=name)
    return text == "true"


def number_in(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise RequestError(f"{name} must be a whole number, 0 or more.", param=name)
    return int(text)
