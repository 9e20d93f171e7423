"""Small C and C++ programs that a test builds around the native library's sources."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "octavo" / "ops" / "cpu" / "native"


def built(target: Path, *words: str | Path) -> Path:
    """`target`, compiled. Skips the test where there is no compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no compiler")
    subprocess.run([compiler, "-o", str(target), *map(str, words)], check=True, timeout=120)
    return target
