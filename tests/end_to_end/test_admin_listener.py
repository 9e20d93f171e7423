"""`octavo serve --admin-port`: a second listener of one process, and a core that gives memory back."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.end_to_end.server_process import ServerProcess, serving
from tests.tiny import save_model


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Operated:
    """A server and its administrative address."""

    def __init__(self, server: ServerProcess, admin_url: str, profiles: Path) -> None:
        self.server = server
        self.public = httpx.Client(base_url=server.url, timeout=60)
        self.admin = httpx.Client(base_url=admin_url, timeout=60)
        self.profiles = profiles

    def answer(self, prompt: list[int], max_tokens: int = 8) -> dict[str, Any]:
        body = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        reply = self.public.post("/v1/completions", json=body)
        assert reply.status_code == 200, reply.text
        choice: dict[str, Any] = reply.json()["choices"][0]
        return choice

    def core_mib(self) -> float:
        (core,) = psutil.Process(self.server.process.pid).children(recursive=True)
        return float(core.memory_info().rss) / 2**20


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    model = save_model(
        folder / "wide",
        hidden_size=64,
        intermediate_size=40_000,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=256,
        max_position_embeddings=2048,
    )
    port, profiles = free_port(), folder / "profiles"
    flags = ("--num-blocks", "150", "--admin-port", str(port), "--profile-dir", str(profiles))
    with serving(model, *flags, log=folder / "log") as server:
        yield Operated(server, f"http://127.0.0.1:{port}", profiles)


PROMPT = [7 * i % 200 for i in range(1200)]


def test_the_core_gives_its_memory_back_and_answers_as_before(operated: Operated) -> None:
    before = operated.answer(PROMPT)["token_ids"]
    full = operated.core_mib()
    assert operated.admin.post("/sleep?level=1").json() == {"is_sleeping": True, "level": 1}
    without_cache = operated.core_mib()
    assert full - without_cache > 120, "1200 tokens of keys and values are 150 MiB"
    assert operated.admin.post("/sleep?level=2").json()["level"] == 2
    assert without_cache - operated.core_mib() > 40, "the weights are 64 MiB"
    refused = operated.public.post("/v1/completions", json={"prompt": [1], "max_tokens": 1})
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "asleep"
    assert operated.public.get("/readyz").status_code == 503
    assert operated.public.get("/health").status_code == 200
    assert operated.admin.post("/wake_up").json()["is_sleeping"] is False
    assert operated.answer(PROMPT)["token_ids"] == before
    assert operated.public.get("/load").json()["server_load"] == 0


def test_clients_cannot_reach_it(operated: Operated) -> None:
    for path in ("/sleep", "/wake_up", "/pause", "/resume", "/log_level", "/abort_requests"):
        assert operated.public.post(path, json={}).status_code == 404
    assert operated.public.get("/server_info").status_code == 404
    assert operated.admin.post("/v1/completions", json={"prompt": [1]}).status_code == 404


def test_an_operator_ends_a_stream(operated: Operated) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": 1500, "ignore_eos": True, "stream": True}
    lines: list[str] = []
    started = threading.Event()

    def read() -> None:
        with operated.public.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                lines.append(line)
                started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(30)
    answer_id = json.loads(lines[0].removeprefix("data: "))["id"]
    reply = operated.admin.post("/abort_requests", json={"request_ids": [answer_id, "cmpl-x"]}).json()
    assert reply == {"aborted": [answer_id], "unknown": ["cmpl-x"]}
    reader.join(30)
    assert not reader.is_alive()
    texts = [line.removeprefix("data: ") for line in lines if line]
    assert texts[-1] == "[DONE]" and "error" in json.loads(texts[-2])
    deadline = time.monotonic() + 10
    while operated.public.get("/load").json()["server_load"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert operated.public.get("/load").json()["server_load"] == 0


def test_a_profile_is_written_where_the_operator_said(operated: Operated) -> None:
    assert operated.admin.post("/start_profile").status_code == 200
    assert operated.admin.post("/start_profile").status_code == 400
    operated.answer([1, 2, 3])
    name = operated.admin.post("/stop_profile").json()["file"]
    trace = json.loads(gzip.decompress((operated.profiles / name).read_bytes()))
    assert any(event.get("name", "").startswith("aten::") for event in trace["traceEvents"])
    assert operated.admin.post("/stop_profile").status_code == 400
    operated.answer([1, 2, 3])


def test_the_rest_of_it(operated: Operated) -> None:
    assert operated.admin.post("/reset_prefix_cache").status_code == 200
    assert operated.admin.post("/log_level", json={"level": "WARNING"}).status_code == 200
    info = operated.admin.get("/server_info").json()
    options = {row["option"]: row for row in info["options"]}
    assert options["num_blocks"]["value"] == 150 and options["dtype"]["reason"]
    assert info["memory_bytes"]["weights"] > 0


def test_it_ends_with_the_server(operated: Operated) -> None:
    """The last test of this file."""
    operated.public.close()
    assert operated.server.stop() == 0
    with pytest.raises(httpx.HTTPError):
        operated.admin.get("/is_sleeping")
