"""What is known of the processor before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from octavo.base import native


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
