"""The OpenAPI page is true: schemathesis makes requests from it, good and bad, and believes no answer.

It checks that no request makes the server fail, that what breaks a schema is refused, that every status,
header, media type, body and event is described as it is, and that paths name their methods.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from server_fakes import FakeEngine, fake_config
from server_live import LiveServer
from test_admin_routes import AdminEngine

from octavo.server.admin.app import create_admin_app
from octavo.server.lifecycle import Lifecycle
from tests.end_to_end.server_process import serving
from tests.tiny import save_model

CONFIG = """
[generation]
allow-x00 = true

[checks.positive_data_acceptance]
# Rules between fields, ranges and names that only this server knows are not in a schema: 400 is an answer.
expected-statuses = ["2xx", "400", "404", "413", "422", "501"]
"""

FULL = ("--phases", "examples,coverage,fuzzing", "--max-examples", "25")
SHORT = ("--phases", "fuzzing", "--max-examples", "2")


def run(url: str, folder: Path, *flags: str) -> str:
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [f"{url}/openapi.json", "--mode", "all", "--seed", "1", "--no-color"]
    command += ["--continue-on-failure", "--generation-database", "none", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    return done.stdout


def check_after(engine: FakeEngine, output: str, least_routes: int = 20) -> None:
    assert engine.num_open == 0
    selected = re.search(r"Selected: (\d+)/(\d+)", output)
    assert selected and selected[1] == selected[2] and int(selected[1]) > least_routes, output[-3000:]


def test_a_short_look(live: LiveServer, engine: FakeEngine, tmp_path: Path) -> None:
    check_after(engine, run(live.url, tmp_path, *SHORT))


def test_the_operators_page(tmp_path: Path) -> None:
    engine = AdminEngine(fake_config())
    live = LiveServer(engine, create_admin_app(engine, engine.config, Lifecycle()))
    try:
        check_after(engine, run(live.url, tmp_path, *SHORT), least_routes=10)
    finally:
        live.stop()


@pytest.mark.slow
def test_the_whole_page(live: LiveServer, engine: FakeEngine, tmp_path: Path) -> None:
    check_after(engine, run(live.url, tmp_path, *FULL))


@pytest.mark.slow
def test_a_real_server(tmp_path: Path) -> None:
    """A model that computes, in processes of its own: what comes through the checks also goes through it."""
    flags = ("--max-model-len", "128", "--num-blocks", "100", "--trust-request-chat-template")
    flags += ("--files-dir", str(tmp_path / "files"))
    with serving(save_model(tmp_path / "tiny"), *flags, log=tmp_path / "log") as server:
        output = run(server.url, tmp_path, "--phases", "fuzzing", "--max-examples", "15")
        assert re.search(r"Selected: (\d+)", output)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        metrics = httpx.get(f"{server.url}/metrics").text
        assert "vllm:core_restarts_total" in metrics
        assert not re.search(r"^vllm:core_restarts_total.* [1-9]", metrics, re.MULTILINE)
        assert "Traceback" not in (tmp_path / "log").read_text()
