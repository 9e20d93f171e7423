"""What a killed server leaves of its clients' files is taken away by the next one, and nothing else is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from octavo.server.openai.files.disk import PRIVATE, Disk, remove_abandoned


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def old(path: Path) -> Path:
    os.utime(path, (1.0, 1.0))
    return path


def test_p04_only_what_nobody_claims_is_removed(folder: Path) -> None:
    used = Disk(None)
    used.open()
    (in_use,) = folder.iterdir()
    (folder / f"{PRIVATE}killed" / "contents").mkdir(parents=True)
    (folder / f"{PRIVATE}killed" / "contents" / "file-1").write_text("a client's")
    (folder / f"{PRIVATE}new").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "precious").write_text("kept")
    (folder / f"{PRIVATE}link").symlink_to(folder / "elsewhere")
    old(in_use)
    old(folder / f"{PRIVATE}killed")
    remove_abandoned()
    left = {path.name for path in folder.iterdir()}
    assert left == {in_use.name, f"{PRIVATE}new", f"{PRIVATE}link", "elsewhere"}
    assert (folder / "elsewhere" / "precious").exists()
    used.close()
