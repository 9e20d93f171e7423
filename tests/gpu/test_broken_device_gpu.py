"""A kernel of the core fails for good: another core takes over, and every request gets all its tokens."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.end_to_end.server_process import serving
from tests.tiny import save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FLAGS = ("--dtype", "float32", "--deterministic", "--max-model-len", "1024", "--num-blocks", "600")
BREAKER = Path(__file__).parent / "broken_device"


def test_requests_go_on_in_another_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "break"
    monkeypatch.setenv("OCTAVO_TEST_BREAK_DEVICE", str(asked))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(BREAKER), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    model, log = save_model(tmp_path / "model"), tmp_path / "log"
    with serving(model, *FLAGS, log=log) as server, httpx.Client(base_url=server.url, timeout=120) as http:
        expected = [text(http, number) for number in range(6)]
        assert restarts(http) == 0
        with ThreadPoolExecutor(6) as pool:
            found = [pool.submit(text, http, number) for number in range(6)]
            time.sleep(0.3)
            asked.touch()
            assert [future.result() for future in found] == expected, log.read_text()
        assert restarts(http) == 1, log.read_text()
        assert http.get("/readyz").status_code == 200
        assert text(http, 0) == expected[0]


def text(http: httpx.Client, number: int) -> str:
    body = {"prompt": [number + 5, 7, 9], "max_tokens": 900, "temperature": 0, "ignore_eos": True}
    reply: dict[str, Any] = http.post("/v1/completions", json=body).json()
    assert reply["usage"]["completion_tokens"] == 900
    return str(reply["choices"][0]["text"])


def restarts(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:core_restarts_total"))
