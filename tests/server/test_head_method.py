"""HEAD on every route of GET: what GET says, without the body."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from server_fakes import FakeEngine
from server_live import LiveServer

from octavo.base.errors import EngineError


@pytest.mark.parametrize(
    "path",
    ["/health", "/livez", "/readyz", "/ping", "/version", "/v1/models", "/metrics", "/docs", "/nothing"],
)
def test_head_says_what_get_says(live: LiveServer, path: str) -> None:
    with httpx.Client(base_url=live.url) as client:
        told, asked = client.get(path), client.head(path)
        assert asked.status_code == told.status_code and not asked.content
        assert asked.headers["content-type"] == told.headers["content-type"]
        if path != "/metrics":  # which the first of the two has changed
            assert asked.headers["content-length"] == told.headers["content-length"] != "0"
        assert client.get("/livez").json() == {"status": "ok"}, "the connection goes on"


async def test_head_of_a_server_that_is_not_well(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.health = EngineError("The core is gone.")
    assert [(await client.head(path)).status_code for path in ("/health", "/readyz", "/ping", "/livez")] == [
        503, 503, 503, 200
    ]  # fmt: skip


async def test_head_of_a_stream_does_not_wait_for_its_end(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.stall_at = 2
    body = {"input": "hello", "background": True}
    begun = (await client.post("/v1/responses", json=body)).json()
    path = f"/v1/responses/{begun['id']}"
    asked = await asyncio.wait_for(client.head(f"{path}?stream=true"), 5)
    assert asked.status_code == 200 and asked.headers["content-type"].startswith("text/event-stream")
    assert (await client.get(path)).json()["status"] in ("queued", "in_progress"), "and harms it not"
    await client.post(f"{path}/cancel")


async def test_heads_are_counted_under_their_path(client: httpx.AsyncClient) -> None:
    await client.head("/health")
    page = (await client.get("/metrics")).text
    assert 'http_requests_total{handler="/health",method="HEAD",status="2xx"} 1.0' in page


async def test_the_page_describes_get_alone(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert not any("head" in item for item in paths.values())


async def test_where_there_is_no_get_there_is_no_head(client: httpx.AsyncClient) -> None:
    response = await client.head("/v1/completions")
    assert response.status_code == 405 and response.headers["allow"] == "POST"
