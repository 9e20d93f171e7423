"""/ping and /invocations: the same answers as the routes behind them."""

from __future__ import annotations

import httpx
import pytest
from server_fakes import BOS, FakeEngine, answer_text, fake_config
from server_live import LiveServer, until
from server_replies import check_error, events

from octavo.base.errors import EngineError

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
PROMPT = {"prompt": "hi", "max_tokens": 4}


async def test_ping_is_health(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await client.get("/ping")).json() == {"status": "ok"}
    engine.health = EngineError("The engine is stuck.")
    check_error(await client.get("/ping"), 503, "not_ready", None)


async def test_invocations_chat_and_complete(client: httpx.AsyncClient) -> None:
    chat = (await client.post("/invocations", json=CHAT)).json()
    assert chat["object"] == "chat.completion"
    expected = answer_text([*b"[user]hello[assistant]"], 0, 4)
    assert chat["choices"][0]["message"]["content"] == expected
    completion = (await client.post("/invocations", json=PROMPT)).json()
    assert completion["object"] == "text_completion"
    assert completion["choices"][0]["text"] == answer_text([BOS, *b"hi"], 0, 4)


async def test_invocations_stream(client: httpx.AsyncClient) -> None:
    parts = events(await client.post("/invocations", json={**PROMPT, "stream": True}))
    text = "".join(part["choices"][0]["text"] for part in parts if part["choices"])
    assert text == answer_text([BOS, *b"hi"], 0, 4)


@pytest.mark.parametrize("body", [{}, {"inputs": "x"}, {**CHAT, **PROMPT}, {"input": [1]}])
async def test_other_bodies_are_refused(client: httpx.AsyncClient, engine: FakeEngine, body: object) -> None:
    check_error(await client.post("/invocations", json=body), 400, "invalid_value", None)
    assert not engine.seen


async def test_bad_bodies_are_refused_as_elsewhere(client: httpx.AsyncClient) -> None:
    json = {"content-type": "application/json"}
    check_error(await client.post("/invocations", content=b"{", headers=json), 400, "json_invalid", None)
    check_error(await client.post("/invocations", content=b"{}"), 415, "unsupported_media_type", None)
    response = await client.post("/invocations", json={**PROMPT, "temperature": -1})
    check_error(response, 400, "invalid_value", "temperature")


def test_a_client_that_leaves_stops_costing() -> None:
    engine = FakeEngine(fake_config(), stall_at=1)
    server = LiveServer(engine)
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/invocations", json=CHAT, timeout=0.5)
        until(lambda: engine.num_aborted == 1)
    finally:
        server.stop()


async def test_invocations_ask_for_the_key_and_ping_does_not() -> None:
    server = LiveServer(FakeEngine(fake_config(api_key=["k"])))
    try:
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/ping")).status_code == 200
            check_error(await client.post("/invocations", json=PROMPT), 401, "invalid_api_key", None)
            response = await client.post("/invocations", json=PROMPT, headers={"x-api-key": "k"})
            assert response.status_code == 200
    finally:
        server.stop()
