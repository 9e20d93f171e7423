"""`octavo chat`: picks who answers (a server or a model in this process) and how messages come in."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ConfigError
from octavo.cli import http
from octavo.cli.chat.partners import InlinePartner, Partner, ServerPartner
from octavo.cli.chat.session import Session
from octavo.cli.command import Command
from octavo.cli.sampling import add_sampling_arguments, given_sampling
from octavo.cli.streams import read_stdin
from octavo.config.flags import FlagParser, add_config_options, config_from, given_options

_DEFAULT_ADDRESS = ("127.0.0.1", 8000)


def _add_arguments(parser: FlagParser) -> None:
    chat = parser.add_argument_group("chat")
    chat.add_argument("--url", metavar="URL", help="Talk to this server; MODEL then names one of its models.")
    chat.add_argument("--api-key", metavar="KEY", help="The server's key (also from OCTAVO_API_KEY).")
    chat.add_argument("--system", "--system-prompt", metavar="TEXT", help="System message.")
    chat.add_argument(
        "-q",
        "--quick",
        "--prompt",
        dest="quick",
        metavar="TEXT",
        help="Ask this one thing, answer and leave.",
    )
    chat.add_argument(
        "--show-reasoning",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Show what the model thinks before it answers: dimmed, and beside a piped answer on standard "
        "error (default: on).",
    )
    add_sampling_arguments(parser)
    add_config_options(parser, ("model", "cache", "schedule", "observe"))


def _run(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    is_interactive = parsed.quick is None and sys.stdin.isatty()
    question = parsed.quick
    if not is_interactive and question is None:
        question = read_stdin().strip()
    if not is_interactive and not question:
        raise ConfigError("There is no question: standard input is empty. Pipe text in or use --quick TEXT.")
    partner = _partner(parsed)
    try:
        session = Session(
            partner,
            system=parsed.system,
            sampling=given_sampling(parsed),
            console=Console(stderr=not is_interactive),
            shows_reasoning=parsed.show_reasoning,
        )
        if is_interactive:
            _enable_line_editing()
            session.loop()
        else:
            session.ask(question)
    finally:
        partner.close()
    return 0


def _partner(parsed: argparse.Namespace) -> Partner:
    options = given_options(parsed)
    url = parsed.url
    if url is None and not options and _is_listening():
        url = http.DEFAULT_URL
    if url is not None:
        _refuse_engine_options(options)
        root = http.root_url(url)
        return ServerPartner(
            root, options.get("model") or http.served_model(root, parsed.api_key), parsed.api_key
        )
    if parsed.api_key is not None:
        raise ConfigError(
            "--api-key is for a server, and none is talked to: give its --url, or leave the key out.",
            param="--api-key",
        )
    config = config_from(parsed)
    print(f"Loading {config.model.model} ...", file=sys.stderr)
    return InlinePartner(config)


def _refuse_engine_options(options: Mapping[str, Any]) -> None:
    """They would say how to load a model, and the server has loaded its own."""
    names = [name for name in options if name != "model"]
    if names:
        flags = ", ".join("--" + name.replace("_", "-") for name in names)
        raise ConfigError(f"{flags} is for a model of this process; leave it out with --url.", param=names[0])


def _is_listening() -> bool:
    """Whether anything answers where `octavo serve` listens by default."""
    try:
        with socket.create_connection(_DEFAULT_ADDRESS, timeout=0.3):
            return True
    except OSError:
        return False


def _enable_line_editing() -> None:
    """Arrow keys and history in input(), where the system has readline."""
    try:
        import readline  # noqa: F401 (importing it is what turns it on)
    except ImportError:
        return


COMMAND = Command(
    description=(
        "Talk to a model. With --url, to that server; without MODEL and engine options, to the server on\n"
        "port 8000 if one listens; otherwise the model is loaded into this process. Text\n"
        "piped in is one question."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
