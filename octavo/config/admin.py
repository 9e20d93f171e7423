"""AdminConfig: the listener for operators, apart from the one for clients."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.option import option


@dataclass(frozen=True, kw_only=True)
class AdminConfig:
    """The administrative listener: sleep, pause, log level, profiles. Off unless it is given a port."""

    admin_host: str = option("127.0.0.1", "Address of the administrative listener.")
    admin_port: int | None = option(
        None, "Port of the administrative listener; 'auto' means that there is none."
    )
    admin_api_key: list[str] = option(
        [],
        "Keys of the administrative listener (also from OCTAVO_ADMIN_API_KEY). Clients' keys do not open it. "
        "Needed unless admin_host is a loopback address.",
        is_secret=True,
    )
    profile_dir: str | None = option(None, "Folder for the traces that /start_profile begins.")
