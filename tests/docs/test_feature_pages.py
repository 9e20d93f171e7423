"""The examples in docs/features/ run as they stand, against a live server with the default model
(or with the one that a page is about).

A page's blocks run one after the other in one process, as a reader would run them. A block after
`<!-- not run: reason -->` is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.config.model import DEFAULT_MODEL
from tests.end_to_end.server_process import ServerProcess

FEATURES = Path(__file__).resolve().parents[2] / "docs" / "features"
PAGES = sorted(FEATURES.glob("*.md"))
ADDRESS = "http://127.0.0.1:8000"
TIMEOUT_S = 180
SERVERS = {"embeddings": "documented_embedder"}
"""Pages whose examples want another server than the default model's, and its fixture."""

BLOCK = re.compile(
    r"(?P<note><!-- not run: (?P<reason>[^>]+?) -->\s*\n)?^```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def script_of(page: Path) -> str:
    """All blocks that are to run, each under its number."""
    blocks = [
        f"# Block {number} of {page.name}\n{match['code']}"
        for number, match in enumerate(BLOCK.finditer(page.read_text()), start=1)
        if match["note"] is None
    ]
    return "\n".join(blocks)


@pytest.mark.real
@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page)], ids=lambda page: page.stem)
def test_examples_of(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: ServerProcess = request.getfixturevalue(SERVERS.get(page.stem, "documented_server"))
    script = tmp_path / "example_page.py"
    script.write_text(script_of(page).replace(ADDRESS, server.url))
    # Octavo itself stays off the network; huggingface_hub's clients may talk to our own server.
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=env | {"OCTAVO_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stderr[-3000:]}"


def test_every_page_shows_an_example_at_the_documented_address() -> None:
    assert PAGES
    for page in PAGES:
        text = page.read_text()
        assert re.search(r"^```(python|bash|sh|console)$", text, re.MULTILINE), f"{page.name} has no example"
        for port in re.findall(r"(?:127\.0\.0\.1|localhost):(\d+)", text):
            assert port in {"8000", "9000"}, f"{page.name}: examples use port 8000 (9000 for administration)"


def test_notes_belong_to_blocks() -> None:
    """A note that is spelled differently would silently run, or not run, a block."""
    for page in PAGES:
        text = page.read_text()
        noted = sum(match["note"] is not None for match in BLOCK.finditer(text))
        assert text.count("<!-- not run") == noted, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_models_that_examples_name_are_those_that_the_page_serves(page: Path) -> None:
    """A server answers to the name that its model was asked for by: no other spelling of it."""
    text = page.read_text()
    served = set(re.findall(r"^octavo serve ([a-z0-9][\w.-]*)", text, re.MULTILINE))
    served |= set(re.findall(r"--served-model-name (\S+)", text)) | {DEFAULT_MODEL}
    named = set(re.findall(r"""\bmodel(?:=|": )"([\w.-]+)\"""", text))
    assert named <= served
