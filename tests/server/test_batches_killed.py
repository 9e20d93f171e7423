"""A server process killed with SIGKILL in the middle of a batch, and the next one on the same folder."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from batch_server import CHAT, chat_line, jsonl
from test_server_life import Starter, start

__all__ = ["start"]

NUM_LINES = 200


def _client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="alice", max_retries=0)


def _until_completed(api: openai.OpenAI, batch_id: str, count: int, timeout_s: float = 60) -> int:
    end = time.monotonic() + timeout_s
    while True:
        batch = api.batches.retrieve(batch_id)
        counts = batch.request_counts
        if counts is not None and counts.completed >= count and (count < NUM_LINES or batch.completed_at):
            return counts.completed
        assert time.monotonic() < end and batch.status in ("validating", "in_progress", "finalizing"), batch
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_servers_lose_no_line_and_repeat_few(start: Starter, tmp_path: Path) -> None:
    config = {"files_dir": str(tmp_path / "files"), "api_key": ["alice"], "batch_concurrency": 4}
    wishes = {"config": config, "engine": {"delay_s": 0.005}}
    server = start(**wishes)
    server.wait_ready()
    with _client(server) as api:
        data = jsonl([chat_line(f"line-{i}") for i in range(NUM_LINES)])
        file = api.files.create(file=("in.jsonl", data), purpose="batch")
        batch = api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        done = _until_completed(api, batch.id, 10)
    for _ in range(3):
        server.signal(signal.SIGKILL)
        server.exit_status()
        server = start(**wishes)
        server.wait_ready()
        with _client(server) as api:
            found = _until_completed(api, batch.id, 0)
            assert found == 0 or found >= done  # 0: nobody has counted yet.
            done = _until_completed(api, batch.id, done + 10)
    with _client(server) as api:
        _until_completed(api, batch.id, NUM_LINES)
        ended = api.batches.retrieve(batch.id)
        assert ended.status == "completed" and ended.error_file_id is None
        text = api.files.content(ended.output_file_id or "").text
        ids = Counter(json.loads(line)["custom_id"] for line in text.splitlines())
        assert ids == Counter(f"line-{i}" for i in range(NUM_LINES))
    page = httpx.get(server.url + "/metrics", headers={"authorization": "Bearer alice"}).text
    # What the last life answered, and what it did not have to.
    runs = [line for line in page.splitlines() if line.startswith("http_requests_total") and CHAT in line]
    assert runs and float(runs[0].rpartition(" ")[2]) <= NUM_LINES - 30
    server.signal()
    assert server.exit_status() == 0
