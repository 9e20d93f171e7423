"""Clients of an application around the fake engine: in-process for most tests, over a real port for some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from batch_server import clock as clock
from batch_server import folder as folder
from server_fakes import FakeEngine, fake_config
from server_live import LiveServer

from octavo.server.app import create_app


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(fake_config())


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(engine, engine.config.server, engine.config.observe)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def live(engine: FakeEngine) -> Iterator[LiveServer]:
    server = LiveServer(engine)
    yield server
    server.stop()
