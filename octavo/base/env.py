"""The only place that reads environment variables: a typed table.

Names start with OCTAVO_; the few foreign ones we honour are listed too.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where downloaded models and derived files live (OCTAVO_CACHE, else XDG_CACHE_HOME/octavo)."""
    explicit = os.environ.get("OCTAVO_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "octavo"


def api_key() -> str | None:
    """Key that guards the server when no --api-key is given (OCTAVO_API_KEY)."""
    return os.environ.get("OCTAVO_API_KEY") or None


def admin_api_key() -> str | None:
    """Key of the administrative listener when no --admin-api-key is given (OCTAVO_ADMIN_API_KEY)."""
    return os.environ.get("OCTAVO_ADMIN_API_KEY") or None


def is_offline() -> bool:
    """No network may be used (OCTAVO_OFFLINE or HF_HUB_OFFLINE set to 1, true, yes or on)."""
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}
        for name in ("OCTAVO_OFFLINE", "HF_HUB_OFFLINE")
    )


def log_level() -> str:
    """Level of our log lines (OCTAVO_LOG_LEVEL, default INFO)."""
    return os.environ.get("OCTAVO_LOG_LEVEL", "INFO").upper()


def is_debug() -> bool:
    """The command line shows tracebacks of expected errors too (OCTAVO_DEBUG set to 1, true, yes or on)."""
    return os.environ.get("OCTAVO_DEBUG", "").lower() in {"1", "true", "yes", "on"}


def num_inherited_sockets() -> int:
    """Listening sockets that whoever started us hands over, from descriptor 3 on (LISTEN_FDS, LISTEN_PID).

    The protocol of systemd's socket activation. Said to another process, it means nothing.
    """
    count = os.environ.get("LISTEN_FDS", "")
    return int(count) if count.isdecimal() and os.environ.get("LISTEN_PID") == str(os.getpid()) else 0


def without_secrets() -> dict[str, str]:
    """The whole environment but for what may be a key: for processes that run what strangers bring."""
    secret = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
    return {
        name: value for name, value in os.environ.items() if not any(part in name.upper() for part in secret)
    }
