"""What batches leave to others: each to its key, few lines at a time, behind everybody who waits."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from batch_server import CHAT, ended, entries, lines, served, start_batch, until_batch
from server_replies import check_error

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.openai.batches import execute as execute_module
from octavo.server.openai.batches import store as store_module


async def test_few_lines_run_at_a_time_and_others_are_answered() -> None:
    async with served(engine={"delay_s": 0.01}, batch_concurrency=3) as server:
        api = server.api()
        batch = await start_batch(api, lines(30))
        most = 0
        while (await api.batches.retrieve(batch.id)).status in ("validating", "in_progress"):
            most = max(most, server.engine.num_open)
            reply = await asyncio.wait_for(
                api.chat.completions.create(model="fake", messages=[{"role": "user", "content": "me"}]), 5
            )
            assert reply.choices[0].message.content
        assert 1 <= most <= 3 and server.engine.num_open == 0


@pytest.mark.parametrize(("policy", "wish", "given"), [
    ("priority", None, 1000), ("priority", 5, 1000), ("priority", 5000, 5000), ("fcfs", None, 0),
])  # fmt: skip
async def test_batches_stand_behind_everybody(policy: str, wish: int | None, given: int) -> None:
    async with served(scheduling_policy=policy) as server:
        body = {} if wish is None else {"priority": wish}
        await ended(server.api(), await start_batch(server.api(), lines(1, **body)))
        assert [extras["priority"] for _, _, extras in server.engine.seen] == [given]


async def test_a_full_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute_module, "FIRST_WAIT_S", 0.01)
    async with served() as server:
        api = server.api()
        server.engine.refuse = EngineError("Too many requests wait.", code=ErrorCode.OVERLOADED)
        batch = await start_batch(api, lines(3))
        await asyncio.sleep(0.1)
        assert (await api.batches.retrieve(batch.id)).status == "in_progress"
        server.engine.refuse = None
        batch = await ended(api, batch)
        assert batch.request_counts is not None and batch.request_counts.completed == 3


async def test_a_line_that_breaks_the_server_is_given_up() -> None:
    async with served(engine={"crash_at": 1}) as server:
        api = server.api()
        batch = await ended(api, await start_batch(api, lines(2)))
        assert batch.status == "completed" and server.engine.num_started == 2 * execute_module.MAX_FAILURES
        for entry in (await entries(api, batch.error_file_id)).values():
            assert entry["response"]["status_code"] == 500
            assert "secret" not in json.dumps(entry)


async def test_a_line_that_broke_the_engine_down_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took three cores with it, the last one alone. Once more, and the server ends for everybody."""
    monkeypatch.setattr(execute_module, "FIRST_WAIT_S", 0.01)
    async with served() as server:
        api = server.api()
        server.engine.refuse = EngineError("It broke down.", code=ErrorCode.ENGINE_RESTARTED)
        batch = await asyncio.wait_for(ended(api, await start_batch(api, lines(2))), 5)
        assert batch.request_counts is not None and batch.request_counts.failed == 2
        for entry in (await entries(api, batch.error_file_id)).values():
            assert entry["response"]["status_code"] == 503
            assert entry["response"]["body"]["error"]["code"] == "engine_restarted"


async def test_a_sick_engine_costs_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.server.openai.batches.routes.HEALTH_CHECK_S", 0.01)
    async with served() as server:
        api = server.api()
        server.engine.refuse = EngineError("The core died.")
        server.engine.health = EngineError("The core died.")
        batch = await start_batch(api, lines(5))
        await asyncio.sleep(0.1)
        assert (await api.batches.retrieve(batch.id)).status == "in_progress"
        server.engine.refuse = server.engine.health = None
        batch = await ended(api, batch)
        assert batch.request_counts is not None and batch.request_counts.completed == 5


async def test_responses_and_what_they_store_belong_to_the_caller() -> None:
    async with served(api_key=["alice", "bob"]) as server:
        api = server.api("alice")
        line = {"custom_id": "r", "method": "POST", "url": "/v1/responses", "body": {"input": "hi"}}
        batch = await ended(api, await start_batch(api, [line], "/v1/responses"))
        answer = (await entries(api, batch.output_file_id))["r"]["response"]["body"]
        assert answer["object"] == "response" and answer["status"] in ("completed", "incomplete")
        assert (await api.responses.retrieve(answer["id"])).id == answer["id"]
        with pytest.raises(openai.NotFoundError):
            await server.api("bob").responses.retrieve(answer["id"])


async def test_batches_belong_to_their_key() -> None:
    async with served(api_key=["alice", "bob"]) as server:
        alice, bob = server.api("alice"), server.api("bob")
        mine = await ended(alice, await start_batch(alice, lines(2)))
        assert [batch.id async for batch in bob.batches.list()] == []
        for call in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await call(mine.id)
        with pytest.raises(openai.NotFoundError):
            await bob.files.content(mine.output_file_id or "")
        body = {"input_file_id": mine.input_file_id, "endpoint": CHAT, "completion_window": "24h"}
        check_error(
            await server.http("bob").post("/v1/batches", json=body), 404, "not_found", "input_file_id"
        )
        check_error(await server.http("eve").post("/v1/batches", json=body), 401, "invalid_api_key", None)


async def test_a_long_batch_of_one_does_not_hold_up_another() -> None:
    async with served(api_key=["alice", "bob"], engine={"delay_s": 0.005}, batch_concurrency=2) as server:
        alice, bob = server.api("alice"), server.api("bob")
        long = await start_batch(alice, lines(60))
        await until_batch(alice, long.id, lambda b: bool(b.request_counts and b.request_counts.completed))
        await ended(bob, await start_batch(bob, lines(5)))
        counts = (await alice.batches.retrieve(long.id)).request_counts
        assert counts is not None and counts.completed < 40
        await alice.batches.cancel(long.id)


async def test_the_number_of_batches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_UNFINISHED", 3)
    monkeypatch.setattr(store_module, "MAX_KEPT", 5)
    async with served(engine={"stall_at": 1}) as server:
        api = server.api()
        waiting = [await start_batch(api, lines(1)) for _ in range(3)]
        with pytest.raises(openai.InternalServerError, match="have not ended"):
            await start_batch(api, lines(1))
        server.engine.stall_at = None
        for batch in waiting:
            await ended(api, batch)
        made = [(await ended(api, await start_batch(api, lines(1)))).id for _ in range(5)]
        assert [batch.id async for batch in api.batches.list()] == made[::-1]
