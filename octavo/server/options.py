"""What of a server's options can be found wrong before the model is looked at."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.config.admin import AdminConfig
from octavo.config.root import EngineConfig
from octavo.server.admin.app import admin_keys
from octavo.server.openai.files.disk import check_files_dir
from octavo.server.openai.responses.library import check_store
from octavo.server.parsing.detect import detect
from octavo.server.tenants.key_book import configured_keys

ADMIN_ONLY = ("admin_host", "admin_api_key", "profile_dir")


def check_options(config: EngineConfig) -> None:
    """Raises ConfigError; also for an option that would do nothing without another one."""
    if configured_keys(config.server).is_open:
        _check_without_keys(config)
    check_files_dir(config.server)
    check_store(config.server)
    detect(None, config.server.tool_call_parser, config.server.reasoning_parser)
    admin_keys(config.admin)
    if config.admin.admin_port is None:
        _check_without_admin_port(config.admin)


def _check_without_keys(config: EngineConfig) -> None:
    wishes = {
        "separate_prefix_caches": bool(config.server.separate_prefix_caches),
        "scheduling_policy fair": config.schedule.scheduling_policy == "fair",
    }
    for wish, is_on in wishes.items():
        if is_on:
            raise ConfigError(
                f"{wish} tells callers apart by their keys, and there are none: give api_key_file or api_key "
                "too, or leave it out.",
                param=wish.partition(" ")[0],
            )


def _check_without_admin_port(admin: AdminConfig) -> None:
    for name in ADMIN_ONLY:
        if getattr(admin, name) != getattr(AdminConfig(), name):
            raise ConfigError(
                f"{name} is for the administrative listener, and there is none: give admin_port too, or "
                "leave it out.",
                param=name,
            )
