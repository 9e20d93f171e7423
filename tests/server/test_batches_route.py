"""/v1/batches: the official client from upload to answers, bad input, cancelling, restarts, tenants."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_server import CHAT, Clock, chat_line, ended, entries, jsonl, served, start_batch, until_batch
from server_fakes import answer_text
from server_replies import check_error

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.openai.batches import check as check_module
from octavo.server.openai.batches import execute as execute_module
from octavo.server.openai.batches import run as run_module
from octavo.server.openai.batches import store as store_module
from octavo.server.openai.batches.entries import Entry
from octavo.server.openai.batches.journal import Journal, finished_lines
from octavo.server.openai.batches.store import BatchStore


def lines(count: int, **body: Any) -> list[dict[str, Any]]:
    return [chat_line(f"line-{i}", body=body) for i in range(count)]


async def test_the_official_client() -> None:
    async with served() as server:
        api = server.api()
        batch = await start_batch(api, lines(12, model="alias"), metadata={"job": "nightly"})
        assert (batch.status, batch.output_file_id, batch.completion_window) == ("validating", None, "24h")
        assert batch.expires_at == batch.created_at + 24 * 3600 and batch.metadata == {"job": "nightly"}
        batch = await ended(api, batch)
        assert batch.status == "completed" and batch.errors is None and batch.error_file_id is None
        counts = batch.request_counts
        assert counts is not None and (counts.total, counts.completed, counts.failed) == (12, 12, 0)
        assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.completed_at or 0)
        found = await entries(api, batch.output_file_id)
        assert set(found) == {f"line-{i}" for i in range(12)}
        for custom_id, entry in found.items():
            response = entry["response"]
            assert entry["error"] is None and response["status_code"] == 200
            prompt = [*f"[user]{custom_id}[assistant]".encode()]
            assert response["body"]["choices"][0]["message"]["content"] == answer_text(prompt, 0, 4)
            assert response["body"]["model"] == "alias" and len(response["request_id"]) == 32
        output = await api.files.retrieve(batch.output_file_id or "")
        assert output.purpose == "batch_output" and output.filename == f"{batch.id}_output.jsonl"
        assert [listed.id async for listed in api.batches.list()] == [batch.id]


async def test_completions_lines_and_a_last_line_without_its_end() -> None:
    async with served() as server:
        api = server.api()
        line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hi"}}
        data = b"\xef\xbb\xbf\n" + jsonl([line]) + b"  \n" + json.dumps({**line, "custom_id": "b"}).encode()
        file = await api.files.create(file=("in.jsonl", data), purpose="batch")
        batch = await api.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        batch = await ended(api, batch)
        found = await entries(api, batch.output_file_id)
        assert {key: entry["id"] for key, entry in found.items()} == {
            "a": "batch_req_000002",
            "b": "batch_req_000004",
        }


async def test_lines_that_fail_have_a_file_of_their_own() -> None:
    async with served() as server:
        api = server.api()
        bad = [
            chat_line("model", body={"model": "nobody"}),
            chat_line("range", body={"temperature": -1}),
            chat_line("long", body={"max_tokens": 10_000}),
            chat_line("empty", body={"messages": []}),
            chat_line("big", body={"seed": 2**70}),
        ]
        batch = await ended(api, await start_batch(api, [*lines(3), *bad]))
        counts = batch.request_counts
        assert counts is not None and (counts.total, counts.completed, counts.failed) == (8, 3, 5)
        assert len(await entries(api, batch.output_file_id)) == 3
        found = await entries(api, batch.error_file_id)
        assert {key: entry["response"]["status_code"] for key, entry in found.items()} == {
            "model": 404, "range": 400, "long": 400, "empty": 400, "big": 400,
        }  # fmt: skip
        assert found["range"]["response"]["body"]["error"]["param"] == "temperature"


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"input_file_id": "file-0"}, 404, "not_found", "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, 404, "not_found", "input_file_id"),
        ({"input_file_id": 5}, 400, "invalid_value", "input_file_id"),
        ({"input_file_id": "x" * 500}, 400, "invalid_value", "input_file_id"),
        ({"input_file_id": None}, 400, "invalid_value", "input_file_id"),
        ({"endpoint": "/v1/batches"}, 400, "unsupported_value", "endpoint"),
        ({"endpoint": "/v1/moderations"}, 400, "unsupported_value", "endpoint"),
        ({"endpoint": ""}, 400, "unsupported_value", "endpoint"),
        ({"completion_window": "48h"}, 400, "invalid_value", "completion_window"),
        ({"completion_window": None}, 400, "invalid_value", "completion_window"),
        ({"metadata": {"a": 1}}, 400, "invalid_value", "metadata.a"),
        ({"metadata": {str(i): "" for i in range(17)}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"k" * 65: ""}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "invalid_value", "metadata"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 5}},
            400, "invalid_value", "output_expires_after.seconds",
        ),
    ],
)  # fmt: skip
async def test_bad_bodies(changes: dict[str, Any], status: int, code: str, param: str) -> None:
    async with served() as server:
        file = await server.api().files.create(file=("in", jsonl(lines(1))), purpose="batch")
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **changes}
        check_error(await server.http().post("/v1/batches", json=body), status, code, param)
        assert [batch async for batch in server.api().batches.list()] == []


async def test_only_files_for_batches_are_executed() -> None:
    async with served() as server:
        file = await server.api().files.create(file=("in", jsonl(lines(1))), purpose="user_data")
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        check_error(await server.http().post("/v1/batches", json=body), 400, "invalid_value", "input_file_id")


async def test_odd_strings_are_survived() -> None:
    async with served() as server:
        for text in (r"\ud800", r"\u0000", r"\ufffe"):
            body = f'{{"input_file_id": "{text}", "endpoint": "{CHAT}", "completion_window": "24h"}}'
            headers = {"content-type": "application/json"}
            response = await server.http().post("/v1/batches", content=body, headers=headers)
            assert response.status_code in (400, 404)


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ("{", "json_invalid", None),
        ("[]", "json_invalid", None),
        ('"x"', "json_invalid", None),
        ('{"a": NaN}', "invalid_value", "a"),
        ('"\udcff"', "invalid_utf8", None),
        ("[" * 40_000, "too_deep", None),
        ('{"a":' + "[" * 100 + "]" * 100 + "}", "too_deep", None),
        ("x" * 200_000, "body_too_large", None),
        ({}, "invalid_value", "custom_id"),
        ({**chat_line("x"), "custom_id": 5}, "invalid_value", "custom_id"),
        (chat_line(""), "invalid_value", "custom_id"),
        (chat_line("x" * 1000), "invalid_value", "custom_id"),
        (chat_line("ok-1"), "invalid_value", "custom_id"),
        (chat_line("x", method="GET"), "invalid_value", "method"),
        (chat_line("x", url="/v1/completions"), "invalid_value", "url"),
        (chat_line("x", url="/v1/files"), "invalid_value", "url"),
        (chat_line("x", url="http://other/v1/chat/completions"), "invalid_value", "url"),
        ({**chat_line("x"), "body": []}, "invalid_value", "body"),
        ({**chat_line("x"), "body": None}, "invalid_value", "body"),
        (chat_line("x", body={"stream": True}), "unsupported_value", "body.stream"),
        (chat_line("x", body={"background": True}), "unsupported_value", "body.background"),
    ],
)
async def test_bad_lines_fail_the_batch_before_any_runs(line: Any, code: str, param: str | None) -> None:
    async with served(max_body_bytes=150_000) as server:
        api = server.api()
        texts = [json.dumps(chat_line("ok-1")), line if isinstance(line, str) else json.dumps(line)]
        data = "\n".join([*texts, json.dumps(chat_line("ok-2"))]).encode("utf-8", "surrogateescape")
        file = await api.files.create(file=("in", data), purpose="batch")
        batch = await api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")  # type: ignore[arg-type]
        batch = await ended(api, batch)
        assert batch.status == "failed" and batch.failed_at and batch.output_file_id is None
        assert batch.errors is not None and batch.errors.data is not None
        (error,) = batch.errors.data
        assert (error.line, error.code, error.param) == (2, code, param), error
        assert error.message and error.message.endswith(".") and len(error.message) < 500
        assert server.engine.num_started == 0
        after = await ended(api, await start_batch(api, lines(1)))
        assert after.status == "completed"


async def test_all_mistakes_of_a_file_are_told_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "MAX_LINES", 500)
    async with served() as server:
        api = server.api()
        batch = await ended(api, await start_batch(api, ["{", chat_line("a"), "[]", chat_line("a")]))
        assert batch.errors is not None and [error.line for error in batch.errors.data or []] == [1, 3, 4]
        batch = await ended(api, await start_batch(api, ["{"] * 300))
        assert batch.errors is not None and len(batch.errors.data or []) == 101
        for data, code in ((lines(501), "too_many_lines"), (["", "  "], "empty_file")):
            batch = await ended(api, await start_batch(api, data))
            assert batch.status == "failed" and batch.errors is not None
            assert [error.code for error in batch.errors.data or []] == [code]


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


async def test_cancel_a_running_batch(folder: Path) -> None:
    async with served(folder, batch_concurrency=2) as server:
        api, engine = server.api(), server.engine
        engine.delay_s = 0.01
        batch = await start_batch(api, lines(50))
        await until_batch(api, batch.id, lambda b: bool(b.request_counts and b.request_counts.completed >= 4))
        engine.stall_at = 2
        cancelled = await api.batches.cancel(batch.id)
        assert cancelled.status in ("cancelling", "cancelled") and cancelled.cancelling_at
        batch = await ended(api, batch)
        assert batch.status == "cancelled" and batch.cancelled_at
        assert engine.num_open == 0
        counts = batch.request_counts
        assert counts is not None and 4 <= counts.completed < 50
        assert len(await entries(api, batch.output_file_id)) == counts.completed
        assert (await api.batches.cancel(batch.id)).status == "cancelled"
        engine.stall_at = None
        assert (await ended(api, await start_batch(api, lines(2)))).status == "completed"


async def test_cancel_a_waiting_batch_and_an_ended_one() -> None:
    async with served(engine={"stall_at": 1}, batch_concurrency=1) as server:
        api = server.api()
        first = await start_batch(api, lines(2))
        second = await start_batch(api, lines(2))
        await until_batch(api, second.id, lambda b: b.status == "in_progress")
        assert (await api.batches.cancel(second.id)).status == "cancelled"
        server.engine.stall_at = None
        assert (await ended(api, first)).status == "completed"
        started = server.engine.num_started
        with pytest.raises(openai.BadRequestError):
            await api.batches.cancel(first.id)
        with pytest.raises(openai.NotFoundError):
            await api.batches.cancel("batch_0")
        assert server.engine.num_started == started


async def test_restart_in_the_middle(folder: Path) -> None:
    async with served(folder, api_key=["alice"], batch_concurrency=2) as server:
        api = server.api("alice")
        server.engine.delay_s = 0.005
        first = await start_batch(api, [*lines(30), chat_line("bad", body={"temperature": -1})])
        second = await start_batch(api, lines(3))
        await until_batch(api, first.id, lambda b: bool(b.request_counts and b.request_counts.completed >= 8))
    async with served(folder, api_key=["alice"], batch_concurrency=2) as server:
        api = server.api("alice")
        batch = await ended(api, first)
        counts = batch.request_counts
        assert counts is not None and (counts.total, counts.completed, counts.failed) == (31, 30, 1)
        assert len(await entries(api, batch.output_file_id)) == 30
        assert list(await entries(api, batch.error_file_id)) == ["bad"]
        assert (await ended(api, second)).status == "completed"
        # Two lines may have run twice: those that were open when the first server ended.
        assert server.engine.num_started <= 30 - 8 + 3
        assert len(list((folder / "contents").iterdir())) == 2 + 3


async def test_an_entry_that_was_cut_short_is_made_anew(folder: Path) -> None:
    async with served(folder, engine={"stall_at": 3}, batch_concurrency=1) as server:
        batch = await start_batch(
            server.api(),
            [*lines(1), *lines(4, max_tokens=5)[1:]],
        )
        await until_batch(server.api(), batch.id, lambda b: b.status == "in_progress")
    journal = _journal(folder, "output_file_id")
    journal.write_bytes(
        b'{"id":"batch_req_000001","custom_id":"line-0","response":null}\n{"id":"batch_req_0000'
    )
    async with served(folder) as server:
        batch = await ended(server.api(), batch)
        assert set(await entries(server.api(), batch.output_file_id)) == {f"line-{i}" for i in range(4)}
        assert server.engine.num_started == 3


def _journal(folder: Path, column: str) -> Path:
    with sqlite3.connect(folder / "octavo.sqlite3") as connection:
        (file_id,) = connection.execute(f"SELECT {column} FROM batches").fetchone()
    return folder / "contents" / str(file_id)


async def test_an_end_between_the_last_line_and_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process is gone")

    async with served(folder) as server:
        with monkeypatch.context() as patch:
            patch.setattr(BatchStore, "conclude", dies)
            batch = await start_batch(server.api(), lines(3))
            batch = await until_batch(server.api(), batch.id, lambda b: b.status == "finalizing")
            assert batch.output_file_id is None
            with pytest.raises(openai.BadRequestError):
                await server.api().batches.cancel(batch.id)
            await server.lifecycle.close_background()
    async with served(folder) as server:
        batch = await ended(server.api(), batch)
        assert batch.status == "completed" and server.engine.num_started == 0
        assert len(await entries(server.api(), batch.output_file_id)) == 3


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


async def test_draining_stops_lines_at_once_and_they_run_later(folder: Path) -> None:
    async with served(folder, engine={"stall_at": 2}) as server:
        batch = await start_batch(server.api(), lines(6))
        while server.engine.num_open < 4:
            await asyncio.sleep(0.01)
        server.lifecycle.begin_drain()
        await asyncio.wait_for(server.lifecycle.idle(), 5)
        assert server.engine.num_open == 0
    async with served(folder) as server:
        batch = await ended(server.api(), batch)
        assert batch.status == "completed" and batch.error_file_id is None


async def test_a_batch_whose_key_is_gone_waits(folder: Path) -> None:
    async with served(folder, api_key=["alice"], engine={"stall_at": 1}) as server:
        batch = await start_batch(server.api("alice"), lines(2))
        await until_batch(server.api("alice"), batch.id, lambda b: b.status == "in_progress")
    async with served(folder, api_key=["bob"]) as server:
        await asyncio.sleep(0.05)
        assert server.engine.num_started == 0
        with pytest.raises(openai.NotFoundError):
            await server.api("bob").batches.retrieve(batch.id)
    async with served(folder) as server:
        await asyncio.sleep(0.05)
        assert server.engine.num_started == 0
    async with served(folder, api_key=["bob", "alice"]) as server:
        assert (await ended(server.api("alice"), batch)).status == "completed"
    for path in folder.rglob("*"):
        assert not path.is_file() or b"alice" not in path.read_bytes()


async def test_the_window_ends(folder: Path, clock: Clock) -> None:
    async with served(folder, batch_concurrency=1) as server:
        api = server.api()
        server.engine.delay_s = 0.005
        batch = await start_batch(api, lines(20))
        await until_batch(api, batch.id, lambda b: bool(b.request_counts and b.request_counts.completed >= 3))
    clock.ahead_s = 24 * 3600
    async with served(folder) as server:
        api = server.api()
        batch = await ended(api, batch)
        assert batch.status == "expired" and batch.expired_at and server.engine.num_open == 0
        good, late = await entries(api, batch.output_file_id), await entries(api, batch.error_file_id)
        assert len(good) >= 3 and not good.keys() & late.keys() and len(good) + len(late) == 20
        assert {entry["error"]["code"] for entry in late.values()} == {"batch_expired"}
        counts = batch.request_counts
        assert counts is not None and (counts.completed, counts.failed) == (len(good), len(late))


async def test_outputs_may_expire(folder: Path, clock: Clock) -> None:
    async with served(folder) as server:
        api = server.api()
        batch = await start_batch(
            api, lines(1), output_expires_after={"anchor": "created_at", "seconds": 3600}
        )
        batch = await ended(api, batch)
        output = await api.files.retrieve(batch.output_file_id or "")
        assert output.expires_at == output.created_at + 3600
        clock.ahead_s = 3700
        with pytest.raises(openai.NotFoundError):
            await api.files.content(batch.output_file_id or "")


async def test_answers_that_do_not_fit_end_the_batch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(run_module, "ROOM_CHECK_S", 0.0)
    async with served(folder, max_stored_bytes=20_000) as server:
        api = server.api()
        batch = await ended(api, await start_batch(api, lines(60)))
        assert batch.status == "failed" and batch.errors is not None
        assert [error.code for error in batch.errors.data or []] == ["storage_full"]
        assert 1 <= len(await entries(api, batch.output_file_id)) < 60
        assert sum(path.stat().st_size for path in (folder / "contents").iterdir()) < 30_000


async def test_a_disk_that_fails_ends_the_batch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Journal, entry: Entry) -> None:
        raise OSError(28, "No space left on device")

    async with served() as server:
        api = server.api()
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", broken)
            batch = await ended(api, await start_batch(api, lines(5)))
        assert batch.status == "failed" and batch.errors is not None
        assert [error.code for error in batch.errors.data or []] == ["internal_error"]
        assert server.engine.num_open == 0
        assert (await ended(api, await start_batch(api, lines(5)))).status == "completed"


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


async def test_the_input_stays_while_it_is_read() -> None:
    async with served(engine={"stall_at": 1}) as server:
        api = server.api()
        batch = await start_batch(api, lines(2))
        await until_batch(api, batch.id, lambda b: b.status == "in_progress")
        with pytest.raises(openai.BadRequestError, match="cancel the batch"):
            await api.files.delete(batch.input_file_id)
        await api.batches.cancel(batch.id)
        await ended(api, batch)
        assert (await api.files.delete(batch.input_file_id)).deleted


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


async def test_lists_come_in_pages() -> None:
    async with served() as server:
        api = server.api()
        made = [(await start_batch(api, lines(1))).id for _ in range(5)]
        assert [batch.id async for batch in api.batches.list(limit=2)] == made[::-1]
        response = await server.http().get("/v1/batches?limit=101")
        check_error(response, 400, "invalid_value", "limit")
        for batch_id in made:
            await until_batch(api, batch_id, lambda b: b.status == "completed")


def test_a_journal_has_one_writer_and_whole_entries(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"id":"a","custom_id":null}\n' + b"x" * 200_000)
    journal = Journal(path)
    with pytest.raises(BlockingIOError):
        Journal(path)
    journal.append(Entry(id="b", custom_id="c"))
    journal.close()
    assert [entry.key for entry in finished_lines(path)] == ["a", "c"]
    path.write_bytes(b"no end of line")
    Journal(path).close()
    assert path.read_bytes() == b""
