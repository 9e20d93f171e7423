"""Opening model files: regular files only, confined to their folder, mapped read-only.

Knows nothing of formats. A mapped file must not be truncated by others while a model is loaded from it;
replace model files by renaming, as every downloader does. Nothing is read from the map afterwards.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from octavo.base.errors import ModelFileError


def open_regular(path: Path) -> int:
    """Open for reading and return the descriptor. Never blocks: pipes and devices are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise ModelFileError(f"Cannot open {path.name!r}: {reason}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFileError(f"{path.name!r} is not a regular file; folders, pipes and devices are not read.")
    return descriptor


def read_small(path: Path, max_bytes: int) -> bytes:
    """Read a whole file of at most `max_bytes`."""
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > max_bytes:
            raise ModelFileError(f"{path.name!r} has {size} bytes; at most {max_bytes} are read.")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ModelFileError(f"{path.name!r} grew while being read; at most {max_bytes} bytes are read.")
    return data


def read_exactly(descriptor: int, buffer: memoryview, offset: int, file: str) -> None:
    """Fill `buffer` with the bytes from `offset` on. Several threads may read one descriptor at once."""
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
        except OSError as error:
            raise ModelFileError(f"Cannot read {file!r}: {error.strerror}.") from error
        if count == 0:
            raise ModelFileError(
                f"{file!r} ends at byte {offset + done}, {len(buffer) - done} bytes too early: it was "
                "truncated after it was opened. Fetch it again."
            )
        done += count


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file read-only. The pages are shared with every process that maps it."""
    descriptor = open_regular(path)
    try:
        if os.fstat(descriptor).st_size == 0:
            raise ModelFileError(f"{path.name!r} is empty. Fetch it again.")
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"Cannot map {path.name!r}: {error.strerror}.") from error
    finally:
        os.close(descriptor)


def forget_pages(data: mmap.mmap, start: int, num_bytes: int) -> None:
    """These bytes of a mapped file leave this process; they come back from the file if read again."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED") and num_bytes:
        data.madvise(mmap.MADV_DONTNEED, first, start + num_bytes - first)


def confined(folder: Path, *names: str) -> Path:
    """Return the file `name` directly inside `folder`, or one in folders inside it, or raise ModelFileError.

    A symlink may point inside the folder, or into the blobs of the Hugging Face cache entry that the
    folder, or the one it lies in, is a snapshot of; anything else could make us read files that are not the
    model's.
    """
    for name in names:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ModelFileError(f"File name {name!r} is not a plain name inside the model folder.")
    path = folder.joinpath(*names)
    name = "/".join(names)
    try:
        root = folder.resolve(strict=True)
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelFileError(f"The model folder has no file {name!r}. Fetch the model again.") from error
    snapshots = (place.parent for place in (root, root.parent) if place.parent.name == "snapshots")
    allowed = [root, *(place.parent / "blobs" for place in snapshots)]
    if not any(target.is_relative_to(place) for place in allowed):
        raise ModelFileError(
            f"{name!r} is a link that leaves the model folder. Copy the file into the folder instead."
        )
    return path


def has_file(folder: Path, name: str) -> bool:
    """Whether the folder has an entry of this name (a dangling link counts: opening it will say so)."""
    return os.path.lexists(folder / name)
