"""What every command that calls a server needs: the address, the key, the text of an error."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from octavo.base import env
from octavo.base.errors import ConfigError, EngineError

DEFAULT_URL = "http://127.0.0.1:8000"


def root_url(url: str) -> str:
    """The server's root: 'localhost:8000/v1/' -> 'http://localhost:8000'. Raises ConfigError."""
    url = url if "://" in url else f"http://{url}"
    if not _is_usable(url):
        raise ConfigError(f"{url!r} is not an address of a server; write {DEFAULT_URL}.", param="--url")
    return url.rstrip("/").removesuffix("/v1")


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        httpx.URL(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):  # urlsplit's, as for ports that there cannot be
        return False


def headers(api_key: str | None) -> dict[str, str]:
    """The key given, else OCTAVO_API_KEY, as a header. Raises ConfigError if no header can carry it."""
    key = api_key or env.api_key()
    found = {"Content-Type": "application/json"}
    if key:
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                "The API key holds characters that are not printable ASCII; no server takes such a key.",
                param="--api-key",
            )
        found["Authorization"] = f"Bearer {key}"
    return found


def uses_proxies(url: str) -> bool:
    """Proxies of the environment are for other machines only."""
    return (urlsplit(url).hostname or "") not in ("127.0.0.1", "localhost", "::1")


def served_model(url: str, api_key: str | None) -> str:
    """First model the server names. Raises EngineError when it does not answer or refuses."""
    try:
        with httpx.Client(trust_env=uses_proxies(url), timeout=10) as client:
            response = client.get(f"{url}/v1/models", headers=headers(api_key))
    except httpx.HTTPError as error:
        raise EngineError(
            f"No server answers at {url} ({type(error).__name__}). Start one with `octavo serve`, "
            "or give the right address."
        ) from None
    if response.status_code != 200:
        raise EngineError(error_message(response.status_code, response.content))
    try:
        return str(response.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise EngineError(f"{url}/v1/models gave no model; is this an OpenAI-style server?") from None


def error_message(status: int, body: bytes) -> str:
    """The sentence in an error body of the OpenAI shape, else its beginning."""
    try:
        content: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        content = None
    error = content.get("error", content) if isinstance(content, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str) or not message:
        message = body[:200].decode(errors="replace").strip() or "no details"
    if status == 401:
        message += " Give the key with --api-key or OCTAVO_API_KEY."
    return message if status == 200 else f"HTTP {status}: {message}"
