"""`octavo serve`: flags to config, config to the server."""

from __future__ import annotations

import argparse

from octavo.cli.command import Command
from octavo.config.flags import FlagParser, add_config_options, config_from


def _add_arguments(parser: FlagParser) -> None:
    add_config_options(parser)


def _run(parsed: argparse.Namespace) -> int:
    config = config_from(parsed)
    from octavo.cli.startup import print_ready
    from octavo.server.run import run_server

    return run_server(config, on_ready=print_ready)


COMMAND = Command(
    description="Serve a model over the OpenAI API on http://127.0.0.1:8000.",
    add_arguments=_add_arguments,
    run=_run,
)
