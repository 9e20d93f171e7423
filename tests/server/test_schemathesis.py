"""The OpenAPI page is true: schemathesis makes requests from it, good and bad, and believes no answer.

It checks that no request makes the server fail, that what breaks a schema is refused, that every status,
header, media type, body and event is described as it is, and that paths name their methods.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from server_fakes import FakeEngine, fake_config
from server_live import LiveServer
from test_admin_routes import AdminEngine

from octavo.server.admin.app import create_admin_app
from octavo.server.lifecycle import Lifecycle

CONFIG = """
[generation]
allow-x00 = true

[checks.positive_data_acceptance]
# Rules between fields, ranges and names that only this server knows are not in a schema: 400 is an answer.
expected-statuses = ["2xx", "400", "404", "413", "422", "501"]
"""

FULL = ("--phases", "examples,coverage,fuzzing", "--max-examples", "25")
SHORT = ("--phases", "fuzzing", "--max-examples", "2")


def run(live: LiveServer, folder: Path, *flags: str) -> str:
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [f"{live.url}/openapi.json", "--mode", "all", "--seed", "1", "--no-color"]
    command += ["--continue-on-failure", "--generation-database", "none", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    return done.stdout


def check_after(engine: FakeEngine, output: str, least_routes: int = 20) -> None:
    assert engine.num_open == 0
    selected = re.search(r"Selected: (\d+)/(\d+)", output)
    assert selected and selected[1] == selected[2] and int(selected[1]) > least_routes, output[-3000:]


def test_a_short_look(live: LiveServer, engine: FakeEngine, tmp_path: Path) -> None:
    check_after(engine, run(live, tmp_path, *SHORT))


def test_the_operators_page(tmp_path: Path) -> None:
    engine = AdminEngine(fake_config())
    live = LiveServer(engine, create_admin_app(engine, engine.config, Lifecycle()))
    try:
        check_after(engine, run(live, tmp_path, *SHORT), least_routes=10)
    finally:
        live.stop()


@pytest.mark.slow
def test_the_whole_page(live: LiveServer, engine: FakeEngine, tmp_path: Path) -> None:
    check_after(engine, run(live, tmp_path, *FULL))
