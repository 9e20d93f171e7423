"""The table of subcommands and the shape of one. Importing it imports none of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from octavo.base.table import LazyTable
from octavo.config.flags import FlagParser


@dataclass(frozen=True, kw_only=True)
class Command:
    """One subcommand: how its flags are declared and what it does. `run` returns the exit code."""

    description: str
    add_arguments: Callable[[FlagParser], None]
    run: Callable[[argparse.Namespace], int]


SUMMARIES = {
    "serve": "Serve a model over the OpenAI API",
    "chat": "Talk to a model in the terminal",
    "generate": "Complete prompts offline",
    "run-batch": "Execute a file of API requests offline",
    "pull": "Download a model",
    "explain": "Show every option's value and why, and whether a model runs",
    "plan": "Show where memory would go and how many users would fit",
    "bench latency": "Time one batch, offline",
    "bench throughput": "Time many requests, offline",
    "bench serve": "Time a running server under load",
    "env": "Report the environment for a bug report",
}

COMMANDS: LazyTable[Command] = LazyTable(
    "command",
    {
        "serve": "octavo.cli.serve:COMMAND",
        "chat": "octavo.cli.chat.command:COMMAND",
        "generate": "octavo.cli.generate:COMMAND",
        "run-batch": "octavo.cli.run_batch:COMMAND",
        "pull": "octavo.cli.pull:COMMAND",
        "explain": "octavo.cli.explain:COMMAND",
        "plan": "octavo.cli.plan:COMMAND",
        "bench latency": "octavo.cli.bench.latency:COMMAND",
        "bench throughput": "octavo.cli.bench.throughput:COMMAND",
        "bench serve": "octavo.cli.bench.serve:COMMAND",
        "env": "octavo.cli.env:COMMAND",
    },
)
