"""`octavo run-batch`: a file of API requests executed offline, by the code behind /v1/batches."""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ConfigError, EngineError, RequestError
from octavo.cli.command import Command
from octavo.cli.streams import user_path
from octavo.config.flags import FlagParser, add_config_options, config_from, parse_int
from octavo.config.root import EngineConfig

if TYPE_CHECKING:
    from octavo.server.openai.batches.entries import Entry, EntryKey
    from octavo.server.openai.batches.journal import Journal
    from octavo.server.openai.batches.lines import Line


_BEGINNING = b'{"id":"batch_req_'
"""Of every entry, and so of every output."""


def _add_arguments(parser: FlagParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "-i", "--input-file", metavar="FILE", help="JSONL file with one request a line, as for /v1/batches."
    )
    files.add_argument("-o", "--output-file", metavar="FILE", help="JSONL file for the answers.")
    files.add_argument(
        "--resume", action="store_true", help="Go on with an output file: lines that have an answer stay."
    )
    files.add_argument("--overwrite", action="store_true", help="Replace an output file that exists.")
    files.add_argument(
        "--concurrency",
        type=parse_int,
        metavar="INT",
        help="Most lines at the same time (default: max_num_seqs).",
    )
    files.add_argument("--no-progress", action="store_true", help="Do not show the progress bar.")
    add_config_options(parser, ("model", "cache", "schedule", "observe"))


@dataclass(kw_only=True)
class Before:
    """Lines that had an entry from the start."""

    answered: set[str] = field(default_factory=set)
    """By custom_id."""
    refused: set[str] = field(default_factory=set)
    """By the entry's own id: such a line may have the custom_id of another one, whose answer is to come."""
    num_failed: int = 0

    @property
    def num_lines(self) -> int:
        return len(self.answered) + len(self.refused)

    def add(self, entry: EntryKey) -> None:
        if entry.response is not None and entry.custom_id is not None:
            self.answered.add(entry.custom_id)
        else:
            self.refused.add(entry.id)
        self.num_failed += not entry.is_success


@dataclass(kw_only=True)
class Work:
    """What to execute, and how far it is."""

    source: Path
    journal: Journal
    before: Before
    bar: Any
    """tqdm's."""
    seen: set[str] = field(default_factory=set)
    num_lines: int = 0
    num_failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, entry: Entry) -> None:
        """Called from threads."""
        with self._lock:
            self.journal.append(entry)
            self.num_lines += 1
            self.num_failed += not entry.is_success
            self.bar.set_postfix(failed=self.num_failed, refresh=False)
            self.bar.update()

    def lines(self, endpoints: tuple[str, ...], max_bytes: int) -> Iterator[Line]:
        """Lines to execute. Wrong ones get their entry on the way."""
        from octavo.server.openai.batches.entries import entry_id, refused
        from octavo.server.openai.batches.lines import custom_id_of, parse_line, read_lines

        for raw in read_lines(self.source, max_bytes):
            custom_id = custom_id_of(raw)
            if entry_id(raw.number) in self.before.refused:
                continue
            if custom_id in self.before.answered and custom_id not in self.seen:
                self.seen.add(custom_id)
                continue
            try:
                line = parse_line(raw, endpoints)
                if line.custom_id in self.seen:
                    raise RequestError("Another line has the same custom_id.", param="custom_id")
                self.seen.add(line.custom_id)
            except RequestError as error:
                self.add(refused(raw.number, custom_id, error))
                continue
            yield line


def _run(parsed: argparse.Namespace) -> int:
    source, target = _files(parsed)
    config = config_from(parsed)
    work = _work(source, target, parsed)
    try:
        asyncio.run(_execute(config, work, parsed.concurrency))
    except KeyboardInterrupt:
        print("octavo: interrupted; --resume goes on where this ended.", file=sys.stderr)
        raise
    except BaseExceptionGroup as group:
        raise _cause(group) from None
    finally:
        work.bar.close()
        work.journal.close()
    failed_before = work.before.num_failed
    before = f"{work.before.num_lines} were done before"
    before += f", {failed_before} with an error" if failed_before else ""
    print(
        f"{work.num_lines} lines executed, {work.num_failed} of them with an error, {before}. "
        f"Answers are in {target}.",
        file=sys.stderr,
    )
    return 1 if work.num_failed or failed_before else 0


async def _execute(config: EngineConfig, work: Work, concurrency: int | None) -> None:
    from octavo.engine.async_llm import AsyncLLM
    from octavo.server.app import create_app
    from octavo.server.openai.batches.execute import LineExecutor, execute_all
    from octavo.server.openai.batches.lines import LINE_BYTES
    from octavo.server.openai.batches.routes import served_endpoints
    from octavo.server.tenants.key_book import configured_keys

    engine = await AsyncLLM.start(config)
    try:
        server, seqs = engine.config.server, engine.config.schedule.max_num_seqs
        app = create_app(engine, server, engine.config.observe)
        owner = configured_keys(server).tenants()[0].owner
        executor = LineExecutor(app, engine.check_health, has_priorities=False)

        async def execute(line: Line) -> Entry:
            return await executor.execute(line, owner)

        async def record(entry: Entry) -> None:
            await asyncio.to_thread(work.add, entry)

        lines = work.lines(served_endpoints(app), server.max_body_bytes + LINE_BYTES)
        await execute_all(lines, execute, record, asyncio.Semaphore(concurrency or seqs or 1))
    finally:
        await engine.shutdown()


def _files(parsed: argparse.Namespace) -> tuple[Path, Path]:
    """Input and output. Raises ConfigError before anything is loaded."""
    for option, name in (("--input-file", parsed.input_file), ("--output-file", parsed.output_file)):
        if name is None:
            raise ConfigError(f"{option} is missing.", param=option)
        if "://" in name:
            raise ConfigError(
                f"{option} is a URL; run-batch reads and writes local files only. Download it first.",
                param=option,
            )
    source, target = user_path(parsed.input_file), user_path(parsed.output_file)
    if parsed.concurrency is not None and parsed.concurrency < 1:
        raise ConfigError("--concurrency must be at least 1.", param="--concurrency")
    if parsed.resume and parsed.overwrite:
        raise ConfigError("--resume and --overwrite contradict each other. Give one.", param="--overwrite")
    if not source.is_file():
        raise ConfigError(f"There is no file {source}.", param="--input-file")
    try:
        source.open("rb").close()
    except OSError as error:
        raise ConfigError(f"Cannot read {source}: {error.strerror}.", param="--input-file") from None
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name a file in it.", param="--output-file")
    if target.exists() and target.resolve() == source.resolve():
        raise ConfigError("Input and output are the same file.", param="--output-file")
    return source, target


def _work(source: Path, target: Path, parsed: argparse.Namespace) -> Work:
    """Opens the output, so that a bad name costs nothing."""
    import msgspec
    from tqdm import tqdm

    from octavo.server.openai.batches.journal import Journal, finished_lines

    if target.exists() and target.stat().st_size and not (parsed.resume or parsed.overwrite):
        raise ConfigError(
            f"{target} exists. Give --resume to go on with it, or --overwrite to start anew.",
            param="--output-file",
        )
    try:
        if parsed.overwrite:
            target.unlink(missing_ok=True)
        _check_beginning(target)
        before = Before()
        for entry in finished_lines(target):
            before.add(entry)
        journal = Journal(target)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(
            f"{target} was not written by run-batch; choose another file.", param="--output-file"
        ) from None
    except BlockingIOError:
        raise ConfigError(f"Another run-batch writes {target}.", param="--output-file") from None
    except OSError as error:
        raise ConfigError(f"Cannot write {target}: {error.strerror}.", param="--output-file") from None
    is_shown = sys.stderr.isatty() and not parsed.no_progress
    bar = tqdm(total=_num_lines(source), initial=before.num_lines, unit=" lines", disable=not is_shown)
    return Work(source=source, journal=journal, before=before, bar=bar)


def _check_beginning(target: Path) -> None:
    """Raise DecodeError for a file of somebody else: what looks like an entry cut short would be dropped."""
    import msgspec

    if target.exists() and not _BEGINNING.startswith(target.open("rb").read(len(_BEGINNING))):
        raise msgspec.DecodeError("no entry of ours begins like this")


def _num_lines(source: Path) -> int:
    with source.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of those that ended all lines."""
    error = group.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _cause(error)
    if isinstance(error, OSError):
        return EngineError(f"An answer could not be written: {error.strerror}. --resume goes on from here.")
    return error


COMMAND = Command(
    description=(
        "Execute a file of API requests offline: the lines of /v1/batches, without a server.\n"
        "Every line gets one entry in the output, in the order they end. Exit code 1 if any has an error."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
