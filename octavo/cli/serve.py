"""`octavo serve`: flags to config, config to the server."""

from __future__ import annotations

import argparse

from octavo.base.env import admin_api_key, api_key
from octavo.base.process_view import hide
from octavo.cli.command import Command
from octavo.config.flags import FlagParser, add_config_options, config_from
from octavo.config.root import EngineConfig, iter_options


def _add_arguments(parser: FlagParser) -> None:
    add_config_options(parser)


def _run(parsed: argparse.Namespace) -> int:
    config = config_from(parsed)
    hide(_secrets(config))
    from octavo.cli.startup import print_ready
    from octavo.server.start import run_server

    return run_server(config, on_ready=print_ready)


def _secrets(config: EngineConfig) -> list[str]:
    """Keys, from flags and from the environment."""
    values = config.option_values()
    given = [key for spec in iter_options() if spec.is_secret for key in values[spec.name]]
    return [*given, *(key for key in (api_key(), admin_api_key()) if key)]


COMMAND = Command(
    description="Serve a model over the OpenAI API on http://127.0.0.1:8000.",
    add_arguments=_add_arguments,
    run=_run,
)
