"""The examples run as they stand, on a tiny model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.end_to_end.server_process import serving

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_offline(tiny_llama: Path) -> None:
    assert run("offline.py", str(tiny_llama)).count("->") == 3


def test_streaming(tiny_llama: Path) -> None:
    assert run("streaming.py", str(tiny_llama)).count("parts") == 3


def test_openai_client(tiny_llama: Path, tmp_path: Path) -> None:
    with serving(tiny_llama, "--max-model-len", "512", log=tmp_path / "log") as server:
        assert "tokens)" in run("openai_client.py", server.url)
