"""The examples run as they stand, on a tiny model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.real
def test_embeddings() -> None:
    lines = run("embeddings.py").splitlines()
    assert "'A man is playing the guitar.' -> 'Somebody makes music on a string instrument.'" in lines[0]
    assert "'The new film was a delight.' -> 'I loved that movie.'" in lines[2]
    assert lines[-1] == "about animals: Two dogs chase a ball in the park."
