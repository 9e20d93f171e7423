"""What is known of the processor before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from octavo.base import native


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 9),
        ({"cpu.max": ""}, 9),
        ({}, 9),
        ({"system.slice/octavo.service/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2),
        ({"system.slice/octavo.service/cpu.max": "max 100000", "system.slice/cpu.max": "400000 100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 9),
    ],
)
def test_containers_and_services_limit_the_threads(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    own = tmp_path / "own"
    own.write_text("1:cpu:/old\n0::/system.slice/octavo.service\n")
    monkeypatch.setattr(native, "CGROUPS", tmp_path)
    monkeypatch.setattr(native, "OWN_CGROUP", own)
    monkeypatch.setattr(native, "_allowed_cores", lambda: 9)
    assert native.physical_cores() == cores


def test_cores_are_at_most_the_usable_processors() -> None:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= native.physical_cores() <= usable


def test_a_missing_library_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PATH", tmp_path / "libnative.so")
    native.native_library.cache_clear()
    try:
        assert native.native_library() is None
        assert "C++ compiler" in native.why_no_kernels()
        (tmp_path / "libnative.so").write_bytes(b"no library")
        native.native_library.cache_clear()
        assert native.native_library() is None
        assert "install Octavo anew" in native.why_no_kernels()
    finally:
        native.native_library.cache_clear()
