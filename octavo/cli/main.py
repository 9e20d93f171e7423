"""The `octavo` entry point: finds the subcommand, loads only that one, turns errors into exit codes.

Exit codes: 0 done, 1 the model, the request or the engine failed, 2 the command line or an option is
wrong, 130 interrupted. `octavo --help` must stay well under 0.5 s: nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import octavo
from octavo.base import env
from octavo.base.errors import ConfigError, OctavoError
from octavo.cli.command import COMMANDS, SUMMARIES
from octavo.cli.streams import give_up_stdout, open_closed_streams
from octavo.config.flags import FlagParser

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Never raises our own errors unless debugging."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = env.is_debug() or "--debug" in _before_separator(words)
    open_closed_streams()
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone: nothing more to say, and the interpreter must not try either.
        give_up_stdout()
        return EXIT_FAILED
    except OSError as error:
        if debug or error.errno not in _NO_ROOM:
            raise
        give_up_stdout()
        print(f"octavo: error: The output could not be written: {error.strerror}.", file=sys.stderr)
        return EXIT_FAILED
    except OctavoError as error:
        if debug:
            raise
        print(f"octavo: error: {error.message}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(""))
        return 0 if words else EXIT_USAGE
    if words[0] in ("-V", "--version", "version"):
        print(f"octavo {octavo.__version__}")
        return 0
    if words[0] == "--debug":
        return _run(words[1:])
    name, rest = words[0], words[1:]
    if any(known.startswith(f"{name} ") for known in COMMANDS):
        if not rest or rest[0] in ("-h", "--help"):
            print(_overview(name))
            return 0 if rest else EXIT_USAGE
        name, rest = f"{name} {rest[0]}", rest[1:]
    return _run_command(name, rest)


def _run_command(name: str, rest: list[str]) -> int:
    command = COMMANDS.load(name)
    parser = FlagParser(f"octavo {name}", command.description)
    parser.add_argument("--debug", action="store_true", help="Show a traceback when something fails.")
    command.add_arguments(parser)
    try:
        parsed = parser.parse(rest)
    except SystemExit as done:  # argparse has printed --help
        return int(done.code or 0)
    return command.run(parsed)


def _before_separator(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _overview(family: str) -> str:
    names = [name for name in COMMANDS if name.startswith(family)]
    width = max(len(name) for name in names)
    lines = [f"  {name.ljust(width)}  {SUMMARIES[name]}" for name in names]
    prog = f"octavo {family}".strip()
    head = [f"usage: {prog} COMMAND [options]", ""]
    if not family:
        head = [f"Octavo {octavo.__version__}, a serving engine for large language models.", "", *head]
    tail = [
        "",
        f"`octavo {family or 'COMMAND'}{' COMMAND' if family else ''} --help` shows a command's options.",
    ]
    if not family:
        tail += ["", "  --version  Show the version", "  --debug    Show a traceback when something fails"]
    return "\n".join([*head, "commands:", *lines, *tail])


if __name__ == "__main__":
    sys.exit(main())
