"""The clients that applications use, against a live server with a model that calls tools.

They live in a virtual environment of their own, which `make test-clients` builds; without it these tests
are skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server_process import ServerProcess, serving

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PYTHON = Path(os.environ.get("OCTAVO_CLIENTS_PYTHON", ROOT / ".venv-clients/bin/python"))
MODEL = "qwen2.5-coder-0.5b-instruct"

SCRIPTS = {
    "openai_client": "tokens)",
    "openai_tools": "get_weather({'city':",
    "openai_structured": "length_km=",
    "openai_responses": "completed",
    "anthropic_client": "get_weather {'city':",
    "ollama_client": "tokens)",
    "langchain_client": "get_weather {'city':",
    "litellm_client": "get_weather {'city':",
    "openai_agents_sdk": "OpenAIResponsesModel: get_weather(",
}
"""And what each must have printed."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(not PYTHON.exists(), reason="`make test-clients` builds the clients' environment"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("clients") / "log"
    with serving(Path(MODEL), "--max-model-len", "4096", "--num-blocks", "1024", log=log) as running:
        yield running


@pytest.mark.parametrize("name", SCRIPTS)
def test_client(server: ServerProcess, name: str) -> None:
    # The clients' environment must not see ours, nor anybody's real keys.
    clean = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
    command = [str(PYTHON), str(EXAMPLES / f"{name}.py"), server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=clean, cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr[-4000:]
    assert SCRIPTS[name] in done.stdout, done.stdout


def test_every_example_is_listed_or_run_elsewhere() -> None:
    elsewhere = {"embeddings", "offline", "streaming"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SCRIPTS.keys() | elsewhere
