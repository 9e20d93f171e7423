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
        [],
        "Keys that open every route but health (also from OCTAVO_API_KEY). May be given several times.",
        is_secret=True,
    )
    api_key_file: str | None = option(
        None,
        "TOML or YAML file with named keys, their scopes, weights and limits; read again when it changes.",
    )
    separate_prefix_caches: bool | None = option(
        None, "Give each key a prefix cache of its own, so that no tenant's answers show what others asked."
    )
    root_path: str = option("", "Path prefix when behind a proxy that strips it.")
    allowed_origins: list[str] = option([], "Origins for CORS; none by default.")
    shutdown_timeout: float = option(30.0, "Seconds that running requests get to finish after SIGTERM.")
    request_timeout: float | None = option(
        None, "Seconds after which any request is ended; callers may ask for less. auto means never."
    )
    header_timeout: float = option(20.0, "Seconds that a client may take to send the headers of a request.")
    send_timeout: float = option(
        60.0, "Seconds without taking anything after which a client that is being sent to is left."
    )
    max_body_bytes: int = option(16 * 2**20, "Largest request body, in bytes.")
    max_file_bytes: int = option(200 * 2**20, "Largest file that /v1/files takes, in bytes.")
    max_stored_bytes: int = option(
        8 * 2**30, "Most bytes of files and batches that are kept; each key has an equal share."
    )
    files_dir: str | None = option(
        None,
        "Folder for files and batches, which then survive a restart; else they live as long as the server.",
    )
    batch_concurrency: int | None = option(None, "Most lines of all batches that run at the same time.")
    response_store: str | None = option(
        None, "SQLite file for stored responses, which then survive a restart; else they are kept in memory."
    )
    max_stored_responses: int = option(10_000, "Most responses that are kept; 0 keeps none.")
    max_stored_response_bytes: int = option(256 * 2**20, "Most bytes of responses that are kept.")
    max_background_responses: int = option(64, "Most responses that run in the background at the same time.")
    max_prompts: int = option(256, "Most prompts in one completions request.")
    tool_call_parser: str = option(
        "auto", "How the model writes tool calls; auto finds out from the chat template, none reads none."
    )
    reasoning_parser: str = option(
        "auto", "How the model marks its reasoning; auto finds out from the chat template, none reads none."
    )
    trust_request_chat_template: bool = option(False, "Allow requests to bring their own chat template.")
    ssl_keyfile: str | None = option(None, "TLS key file.")
    ssl_certfile: str | None = option(None, "TLS certificate file.")
    enable_docs: bool = option(True, "Serve the OpenAPI page at /docs.")
