"""The real hub client against a small hub on this machine: list, fetch, cache, and clear failures."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": b"s" * 4096,
    "pytorch_model.bin": b"never fetched",
    "modeling_evil.py": b"raise SystemExit",
}


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub's protocol for a model repository org/tiny."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *_: Any) -> None:
        """Tests print nothing."""

    def _answer(self, has_body: bool) -> None:
        path = self.path.split("?")[0]
        Hub.asked.append(path)
        if path.startswith("/api/models/org/tiny/tree"):
            files = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in FILES.items()]
            self._send(200, json.dumps(files).encode(), {"content-type": "application/json"}, has_body)
            return
        if path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name, "size": len(body)} for name, body in FILES.items()]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(info).encode(), {"content-type": "application/json"}, has_body)
            return
        name = path.rpartition("/")[2]
        if path.startswith("/org/tiny/resolve/") and name in FILES:
            body = FILES[name]
            etag = hashlib.sha256(body).hexdigest()
            self._send(200, body, {"etag": f'"{etag}"', "x-repo-commit": COMMIT}, has_body)
            return
        self._send(404, b"", {"x-error-code": "RepoNotFound"}, has_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], has_body: bool) -> None:
        self.send_response(status)
        for key, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def pull(model: str, endpoint: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`octavo pull` as a user runs it. The client reads its endpoint when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-m", "octavo", "pull", model]
    return subprocess.run(command, capture_output=True, text=True, env={**kept, **settings}, timeout=60)


def fetched(home: Path) -> set[str]:
    folder = home / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    return {path.name for path in folder.iterdir()}


def test_a_repository_is_fetched_without_what_could_run_code(hub: str, tmp_path: Path) -> None:
    done = pull("org/tiny", hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert fetched(tmp_path) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_what_is_in_the_cache_is_not_fetched_again(hub: str, tmp_path: Path) -> None:
    assert pull("org/tiny", hub, tmp_path).returncode == 0
    Hub.asked.clear()
    assert pull("org/tiny", hub, tmp_path).returncode == 0
    assert not any(path.startswith("/org/tiny/resolve") for path in Hub.asked)


def test_an_unreachable_hub_leaves_the_cache_in_use(hub: str, tmp_path: Path) -> None:
    assert pull("org/tiny", hub, tmp_path).returncode == 0
    done = pull("org/tiny", closed_port(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "does not answer" in done.stderr


def test_offline_asks_nobody(hub: str, tmp_path: Path) -> None:
    assert pull("org/tiny", hub, tmp_path).returncode == 0
    Hub.asked.clear()
    assert pull("org/tiny", hub, tmp_path, OCTAVO_OFFLINE="1").returncode == 0
    assert Hub.asked == []


def test_an_unknown_repository_and_an_unreachable_hub_say_what_to_do(hub: str, tmp_path: Path) -> None:
    unknown = pull("org/absent", hub, tmp_path)
    assert unknown.returncode != 0 and "There is no model 'org/absent'" in unknown.stderr
    unreachable = pull("org/tiny", closed_port(), tmp_path)
    assert unreachable.returncode != 0 and "cannot be reached" in unreachable.stderr


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
