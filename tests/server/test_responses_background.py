"""Responses in the background: polled, followed, cancelled, bounded; a drain waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from responses_replies import PATH, events_of, kinds_of, make_client, respond
from scripted_engine import ScriptedEngine
from server_fakes import FakeEngine, answer_text, fake_config
from server_replies import check_error

from octavo.base.errors import EngineError, RequestError
from octavo.server.app import create_app
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.responses import background
from octavo.server.openai.responses.event_log import EventLog
from octavo.server.openai.responses.store import ResponseStore

HELLO_IDS = [*b"[user]hello[assistant]"]


async def fetch(client: httpx.AsyncClient, response_id: str, query: str = "") -> dict[str, Any]:
    response = await client.get(f"{PATH}/{response_id}{query}")
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def until_status(client: httpx.AsyncClient, response_id: str, *statuses: str) -> dict[str, Any]:
    for _ in range(500):
        reply = await fetch(client, response_id)
        if reply["status"] in statuses:
            return reply
        await asyncio.sleep(0.005)
    raise AssertionError(f"still {reply['status']}")


async def test_it_runs_with_nobody_connected(client: httpx.AsyncClient) -> None:
    begun = await respond(client, background=True, max_output_tokens=4)
    assert (begun["status"], begun["background"], begun["output"]) == ("queued", True, [])
    reply = await until_status(client, begun["id"], "incomplete")
    assert reply["output"][0]["content"][0]["text"] == answer_text(HELLO_IDS, 0, 4)
    assert reply["usage"]["output_tokens"] == 4
    cancelled = await client.post(f"{PATH}/{begun['id']}/cancel")
    assert cancelled.json() == reply, "too late: it stays what it is"


async def test_its_events_can_be_read_from_any_place(client: httpx.AsyncClient) -> None:
    begun = await respond(client, background=True, max_output_tokens=4)
    path = f"{PATH}/{begun['id']}?stream=true"
    events = events_of(await client.get(path))
    assert (
        kinds_of(events)[:3] == ["created", "queued", "in_progress"] and kinds_of(events)[-1] == "incomplete"
    )
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events_of(await client.get(path + "&starting_after=4")) == events[5:]
    assert events_of(await client.get(path + f"&starting_after={len(events) - 1}")) == []
    beyond = await client.get(path + f"&starting_after={len(events)}")
    check_error(beyond, 400, "invalid_value", "starting_after")


async def test_a_stream_in_the_background_outlives_its_client(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    posted = await client.post(PATH, json={"input": "hello", "background": True, "stream": True})
    events = events_of(posted)
    assert kinds_of(events)[1] == "queued" and kinds_of(events)[-1] == "incomplete"
    assert await fetch(client, events[0]["response"]["id"]) == events[-1]["response"]
    assert engine.num_aborted == 0


async def test_cancel(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.stall_at = 3
    begun = await respond(client, background=True)
    following = asyncio.create_task(client.get(f"{PATH}/{begun['id']}?stream=true"))
    await until_status(client, begun["id"], "in_progress")
    first, second = await asyncio.gather(*(client.post(f"{PATH}/{begun['id']}/cancel") for _ in range(2)))
    assert first.json()["status"] == "cancelled" and first.json() == second.json()
    assert engine.num_open == 0 and engine.num_aborted == 1
    assert first.json()["output"][0]["status"] == "incomplete" and first.json()["completed_at"] is None
    assert await fetch(client, begun["id"]) == first.json()
    events = events_of(await following)
    assert kinds_of(events)[-1] == "incomplete" and events[-1]["response"] == first.json()
    refused = await client.post(PATH, json={"input": "x", "previous_response_id": begun["id"]})
    check_error(refused, 400, "invalid_value", "previous_response_id")


async def test_cancel_before_the_first_step(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    created = asyncio.create_task(respond(client, background=True))
    begun = await created
    reply = (await client.post(f"{PATH}/{begun['id']}/cancel")).json()
    assert reply["status"] in ("cancelled", "incomplete") and engine.num_open == 0


async def test_only_background_can_be_cancelled(client: httpx.AsyncClient) -> None:
    reply = await respond(client)
    check_error(await client.post(f"{PATH}/{reply['id']}/cancel"), 400, "invalid_value", "response_id")
    followed = await client.get(f"{PATH}/{reply['id']}?stream=true")
    check_error(followed, 400, "invalid_value", "stream")


async def test_a_running_one_is_no_past(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.stall_at = 1
    begun = await respond(client, background=True)
    refused = await client.post(PATH, json={"input": "x", "previous_response_id": begun["id"]})
    error = check_error(refused, 400, "invalid_value", "previous_response_id")
    assert "wait" in error["message"]
    items = (await client.get(f"{PATH}/{begun['id']}/input_items")).json()["data"]
    assert items[0]["content"][0]["text"] == "hello"
    assert (await client.delete(f"{PATH}/{begun['id']}")).json()["deleted"] is True
    assert engine.num_open == 0
    check_error(await client.get(f"{PATH}/{begun['id']}"), 404, "not_found", "response_id")


@pytest.mark.parametrize("trouble", ["fail_at", "crash_at"])
async def test_what_goes_wrong_is_found_out(
    trouble: str, client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    setattr(engine, trouble, 2)
    begun = await respond(client, background=True)
    reply = await until_status(client, begun["id"], "failed")
    assert reply["error"]["code"] == "server_error" and "secret" not in reply["error"]["message"]


async def test_wrong_bodies_are_refused_at_once(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    refused = await client.post(PATH, json={"input": "x" * 600, "background": True})
    check_error(refused, 400, "context_length_exceeded", "input")
    engine.refuse = RequestError("No.", param="temperature")
    refused = await client.post(PATH, json={"input": "x", "background": True})
    check_error(refused, 400, "invalid_value", "temperature")


async def test_their_number_is_bounded() -> None:
    engine = FakeEngine(fake_config(max_background_responses=2), stall_at=1)
    async with make_client(engine) as client:
        ids = [(await respond(client, background=True))["id"] for _ in range(2)]
        refused = await client.post(PATH, json={"input": "x", "background": True})
        check_error(refused, 503, "overloaded", "background")
        assert refused.headers["retry-after"] == "1"
        await client.post(f"{PATH}/{ids[0]}/cancel")
        third = (await respond(client, background=True))["id"]
        for one in (ids[1], third):
            await client.delete(f"{PATH}/{one}")
    assert engine.num_open == 0


async def test_finished_events_are_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MAX_FINISHED", 1)
    ids = []
    for _ in range(2):
        ids.append((await respond(client, background=True))["id"])
        await until_status(client, ids[-1], "incomplete")
        await asyncio.sleep(0.01)
    check_error(await client.get(f"{PATH}/{ids[0]}?stream=true"), 400, "invalid_value", "stream")
    assert (await fetch(client, ids[0]))["status"] == "incomplete"
    assert len(events_of(await client.get(f"{PATH}/{ids[1]}?stream=true"))) > 5


@pytest.mark.parametrize(
    "query",
    [
        "stream=maybe",
        "starting_after=-1&stream=true",
        "starting_after=x&stream=true",
        "starting_after=1",
        "include_obfuscation=true",
    ],
)
async def test_bad_queries(query: str, client: httpx.AsyncClient) -> None:
    begun = await respond(client, background=True)
    answer = await client.get(f"{PATH}/{begun['id']}?{query}")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == query.split("=")[0]


async def test_a_drain_waits_for_them() -> None:
    engine, lifecycle = FakeEngine(fake_config(), delay_s=0.01), Lifecycle()
    app = create_app(engine, engine.config.server, engine.config.observe, lifecycle)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        begun = await respond(client, background=True)
        assert lifecycle.num_active == 1
        lifecycle.begin_drain()
        check_error(await client.get(f"{PATH}/{begun['id']}"), 503, "shutting_down", None)
        await asyncio.wait_for(lifecycle.idle(), 5)
        assert engine.num_aborted == 0 and engine.num_open == 0
        await lifecycle.close_background()


async def test_logprobs_and_reasoning_in_the_background() -> None:
    engine = ScriptedEngine(fake_config(), script="plain")
    async with make_client(engine) as client:
        begun = await respond(client, background=True, include=["message.output_text.logprobs"])
        assert (await until_status(client, begun["id"], "completed"))["output"]


async def test_a_follower_that_is_cut_off_takes_no_number_from_the_events(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number behind which a client resumes is that of an event, for everybody."""

    async def too_slow(log: EventLog, after: int) -> AsyncGenerator[bytes, None]:
        async with aclosing(follow(log, after)) as frames:
            yield await anext(frames)
        raise EngineError("too slow")

    follow = EventLog.follow
    engine.stall_at = 2
    begun = await respond(client, background=True, max_output_tokens=4)
    path = f"{PATH}/{begun['id']}?stream=true"
    with monkeypatch.context() as patched:
        patched.setattr(EventLog, "follow", too_slow)
        cut = events_of(await client.get(path))
        assert [event["type"] for event in cut] == ["response.created", "error"]
    engine.stall_at = None
    await until_status(client, begun["id"], "incomplete")
    events = events_of(await client.get(path))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_one_that_cannot_be_kept_lets_its_followers_go(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.stall_at = 2
    begun = await respond(client, background=True, max_output_tokens=4)
    following = asyncio.create_task(client.get(f"{PATH}/{begun['id']}?stream=true"))
    await until_status(client, begun["id"], "in_progress")

    async def breaks(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ResponseStore, "put", breaks)
    engine.stall_at = None
    events = events_of(await asyncio.wait_for(following, 5))
    assert kinds_of(events)[:3] == ["created", "queued", "in_progress"]


async def collected(log: EventLog, after: int) -> list[bytes]:
    return [frame async for frame in log.follow(after)]


async def test_a_log_forgets_its_beginning() -> None:
    log = EventLog(max_bytes=10)
    for number in range(8):
        log.append(b"%03d" % number)
    with pytest.raises(RequestError, match="events 5 to 7"):
        log.check_start(-1)
    with pytest.raises(RequestError):
        log.check_start(8)
    log.check_start(4)
    log.close()
    assert await collected(log, 4) == [b"005", b"006", b"007"]
    big = EventLog(max_bytes=1)
    big.append(b"longer than that")
    big.close()
    assert await collected(big, -1) == [b"longer than that"], "the newest stays"


async def test_followers_of_a_growing_log() -> None:
    log = EventLog(max_bytes=30)
    readers = [asyncio.create_task(collected(log, after)) for after in (-1, -1, 1)]
    for number in range(5):
        log.append(b"%d" % number)
        await asyncio.sleep(0)
    log.close()
    everything = [b"0", b"1", b"2", b"3", b"4"]
    assert await asyncio.gather(*readers) == [everything, everything, everything[2:]]


async def test_a_slow_follower_is_told() -> None:
    log = EventLog(max_bytes=2)
    log.append(b"0")
    frames = log.follow(-1)
    assert await anext(frames) == b"0"
    for number in range(1, 6):
        log.append(b"%d" % number)
    with pytest.raises(EngineError, match="too slowly"):
        await anext(frames)
