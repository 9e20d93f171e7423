"""ServerConfig: the HTTP side."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.option import option


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The HTTP side. Loopback unless told otherwise."""

    host: str = option("127.0.0.1", "Address to listen on.")
    port: int = option(8000, "Port to listen on.")
    uds: str | None = option(None, "Unix socket to listen on instead of host and port.")
    api_key: list[str] = option(
        [], "Keys that open every route but health (also from OCTAVO_API_KEY). May be given several times."
    )
    root_path: str = option("", "Path prefix when behind a proxy that strips it.")
    allowed_origins: list[str] = option([], "Origins for CORS; none by default.")
    shutdown_timeout: float = option(30.0, "Seconds that running requests get to finish after SIGTERM.")
    max_body_bytes: int = option(16 * 2**20, "Largest request body, in bytes.")
    max_prompts: int = option(256, "Most prompts in one completions request.")
    trust_request_chat_template: bool = option(False, "Allow requests to bring their own chat template.")
    ssl_keyfile: str | None = option(None, "TLS key file.")
    ssl_certfile: str | None = option(None, "TLS certificate file.")
    enable_docs: bool = option(True, "Serve the OpenAPI page at /docs.")
