"""An application with files and batches around the fake engine, and the official client of it."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch
from server_fakes import FakeEngine, fake_config

import octavo.server.app
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.batches.routes import add_file_and_batch_routes

CHAT = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


class Clock:
    """Unix seconds that a test can move."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class BatchServer:
    """One life of a server."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.lifecycle = Lifecycle()
        self.app = octavo.server.app.create_app(
            engine, engine.config.server, engine.config.observe, self.lifecycle
        )

    def http(self, key: str = "none") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://test",
            headers={"authorization": f"Bearer {key}"},
        )

    def api(self, key: str = "none") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url="http://test/v1",
            api_key=key,
            max_retries=0,
            http_client=httpx.AsyncClient(transport=httpx.ASGITransport(self.app)),
        )


Serve = Callable[..., Any]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What files and batches of the servers of a test are stamped with."""
    clock = Clock()
    routes = tuple(
        partial(add, now=clock) if add is add_file_and_batch_routes else add
        for add in octavo.server.app.ADD_ROUTES
    )
    monkeypatch.setattr(octavo.server.app, "ADD_ROUTES", routes)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@asynccontextmanager
async def served(
    folder: Path | None = None, engine: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[BatchServer]:
    """A server from its start to its end."""
    if folder is not None:
        options["files_dir"] = str(folder)
    server = BatchServer(FakeEngine(fake_config(**{"batch_concurrency": 4, **options}), **(engine or {})))
    server.lifecycle.start_background()
    try:
        yield server
    finally:
        await server.lifecycle.close_background()


def chat_line(custom_id: str, **changes: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": custom_id}], "max_tokens": 4}
    body.update(changes.pop("body", {}))
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changes}


def lines(count: int, **body: Any) -> list[dict[str, Any]]:
    return [chat_line(f"line-{i}", body=body) for i in range(count)]


def jsonl(lines: list[Any]) -> bytes:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return "".join(f"{text}\n" for text in texts).encode()


async def start_batch(api: openai.AsyncOpenAI, lines: list[Any], endpoint: str = CHAT, **extra: Any) -> Batch:
    file = await api.files.create(file=("in.jsonl", io.BytesIO(jsonl(lines))), purpose="batch")
    return await api.batches.create(
        input_file_id=file.id,
        endpoint=endpoint,  # type: ignore[arg-type]
        completion_window="24h",
        **extra,
    )


async def until_batch(
    api: openai.AsyncOpenAI, batch_id: str, is_so: Callable[[Batch], bool], timeout_s: float = 20
) -> Batch:
    end = time.monotonic() + timeout_s
    while True:
        batch = await api.batches.retrieve(batch_id)
        if is_so(batch):
            return batch
        assert time.monotonic() < end, f"it did not happen: {batch}"
        await asyncio.sleep(0.01)


async def ended(api: openai.AsyncOpenAI, batch: Batch) -> Batch:
    return await until_batch(api, batch.id, lambda found: found.status in ENDED)


async def entries(api: openai.AsyncOpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """By custom_id; each line has exactly one."""
    assert file_id is not None
    text = (await api.files.content(file_id)).text
    found = [json.loads(line) for line in text.splitlines()]
    by_id = {entry["custom_id"]: entry for entry in found}
    assert len(by_id) == len(found), "a line has two entries"
    return by_id
