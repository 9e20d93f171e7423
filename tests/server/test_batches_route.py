"""/v1/batches: the official client from upload to answers, bad bodies and bad lines, lists."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from batch_server import (
    CHAT,
    chat_line,
    ended,
    entries,
    jsonl,
    lines,
    served,
    start_batch,
    until_batch,
)
from server_fakes import answer_text
from server_replies import check_error

from octavo.server.openai.batches import check as check_module


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


async def test_lists_come_in_pages() -> None:
    async with served() as server:
        api = server.api()
        made = [(await start_batch(api, lines(1))).id for _ in range(5)]
        assert [batch.id async for batch in api.batches.list(limit=2)] == made[::-1]
        response = await server.http().get("/v1/batches?limit=101")
        check_error(response, 400, "invalid_value", "limit")
        for batch_id in made:
            await until_batch(api, batch_id, lambda b: b.status == "completed")
