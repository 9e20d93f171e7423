"""Our own folder of downloaded models. Whatever is in it is complete: files appear by renaming.

One process at a time works on a model; the lock is the operating system's, so it ends with its owner.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from octavo.base.env import cache_dir
from octavo.base.errors import ModelFileError

_PARTIAL = ".partial-"
_CHUNK = 1 << 20


def model_folder(name: str, download_dir: Path | None) -> Path:
    """Where the model of that name lives or will live."""
    return (download_dir or cache_dir() / "models") / name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work on `folder` alone; leftovers of a process that died are removed first."""
    from filelock import FileLock

    lock = FileLock(str(folder / ".lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise ModelFileError(
            f"The folder for downloaded models cannot be used: {error}. Set OCTAVO_CACHE or --download-dir "
            "to a folder you may write to."
        ) from error
    try:
        for leftover in folder.glob(_PARTIAL + "*"):
            _remove(leftover)
        yield
    finally:
        lock.release()


def partial_path(folder: Path, name: str) -> Path:
    """A place to build `name` in, on the same file system. Use only while the folder is locked."""
    return folder / f"{_PARTIAL}{os.getpid()}-{name}"


def publish(partial: Path, final: Path) -> Path:
    """Make a finished file or folder appear under its name, safely on disk."""
    for path in [partial] if partial.is_file() else [file for file in partial.rglob("*") if file.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if final.exists():
        _remove(final)
    os.replace(partial, final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return final


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def verify_sha256(path: Path, expected: str, what: str) -> None:
    """Raise ModelFileError unless the file has the known content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise ModelFileError(
            f"{what} is not the file it should be: sha256 {digest.hexdigest()[:16]}..., expected "
            f"{expected[:16]}... "
            "It was not kept. Try again; if this repeats, the source has changed."
        )
