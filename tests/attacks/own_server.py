"""A server that one row has to itself, because it is to be killed, starved or misled: not the arena's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from tests.attacks.after import slowness
from tests.attacks.arena import CANARY, FLAGS, free_port
from tests.tiny import save_model

START_S = 30.0
MANY_RESTARTS = ("--max-core-restarts", "1000000", "--core-restart-window", "0.001")
SERVE = (sys.executable, "-m", "octavo.cli.main", "serve")


@dataclass
class OwnServer:
    process: subprocess.Popen[bytes]
    url: str
    auth: dict[str, str]
    log_file: Path
    temporary: Path
    """Its TMPDIR."""
    _golden: list[int] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def core(self) -> psutil.Process | None:
        for child in psutil.Process(self.process.pid).children():
            try:
                if "octavo.engine.core_main" in child.cmdline():
                    return child
            except psutil.Error:
                continue
        return None

    @property
    def children(self) -> list[psutil.Process]:
        return _children(self.process)

    def readiness(self) -> int:
        """Status of /readyz; 0 if nobody answers."""
        try:
            return httpx.get(self.url + "/readyz", timeout=5).status_code
        except httpx.HTTPError:
            return 0

    def wait_ready(self, but: int | None = None) -> None:
        """Until it answers with a core whose process id is not `but`."""
        deadline = time.monotonic() + START_S * slowness()
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log[-800:]}"
            core = self.core
            if self.readiness() == 200 and core is not None and core.pid != but:
                return
            time.sleep(0.02)
        raise AssertionError(f"never ready: {self.log[-800:]}")

    def canary(self) -> list[int]:
        """Tokens of a greedy request, which must always be the same."""
        reply = httpx.post(self.url + "/v1/completions", json=CANARY, timeout=60)
        assert reply.status_code == 200, f"the canary got {reply.status_code} {reply.text}"
        ids: list[int] = reply.json()["choices"][0]["token_ids"]
        self._golden = self._golden or ids
        assert ids == self._golden, f"the canary is not golden: {ids}"
        return ids

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_status(self, timeout_s: float = 30.0) -> int:
        return self.process.wait(timeout_s * slowness())

    def stop(self) -> None:
        """It must end as it should."""
        self.signal(signal.SIGTERM)
        status = self.exit_status()
        assert status == 0, f"exit status {status}: {self.log[-800:]}"


@contextmanager
def launched(
    *flags: str,
    model: Path | None = None,
    environment: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    output: int | IO[Any] | None = None,
) -> Iterator[OwnServer]:
    """A server that may not be ready yet. before: a command that runs it. output: instead of a log file."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        folder = Path(name)
        (folder / "temporary").mkdir()
        model = model or save_model(folder / "tiny")
        port = free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*before, *SERVE, str(model), "--port", str(port), *FLAGS, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=subprocess.STDOUT if output is None else output,
                env={**os.environ, "TMPDIR": str(folder / "temporary"), **(environment or {})},
            )
        server = OwnServer(process, f"http://127.0.0.1:{port}", {}, folder / "log", folder / "temporary")
        try:
            yield server
        finally:
            for one in [*_children(process), process]:
                one.kill()
            process.wait()


@contextmanager
def started(*flags: str, **options: Any) -> Iterator[OwnServer]:
    """The same, ready, its canary known."""
    with launched(*flags, **options) as server:
        server.wait_ready()
        server.canary()
        yield server


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    except psutil.Error:
        return []


def lives(process: psutil.Process) -> bool:
    """It has not ended, whether or not anybody has taken notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
