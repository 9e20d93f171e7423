"""What is kept of responses: where, for whom, how much, how long; and how one continues another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from responses_replies import PATH, make_client, respond, stream
from scripted_engine import ScriptedEngine, use_markup
from server_fakes import FakeEngine, fake_config
from server_replies import check_error

from octavo.server.openai.responses import history


def stored_options(path: Path) -> dict[str, Any]:
    return {"response_store": str(path / "responses.db")}


async def test_fetch_and_delete(client: httpx.AsyncClient) -> None:
    reply = await respond(client)
    path = f"{PATH}/{reply['id']}"
    assert (await client.get(path)).json() == reply
    assert (await client.delete(path)).json() == {"id": reply["id"], "object": "response", "deleted": True}
    for answer in (await client.get(path), await client.delete(path), await client.post(path + "/cancel")):
        check_error(answer, 404, "not_found", "response_id")
    check_error(await client.get(path + "/input_items"), 404, "not_found", "response_id")


async def test_streams_are_kept_before_they_say_so(client: httpx.AsyncClient) -> None:
    last = (await stream(client))[-1]["response"]
    assert (await client.get(f"{PATH}/{last['id']}")).json() == last


async def test_store_false_keeps_nothing(client: httpx.AsyncClient) -> None:
    reply = await respond(client, store=False)
    assert reply["store"] is False
    check_error(await client.get(f"{PATH}/{reply['id']}"), 404, "not_found", "response_id")
    refused = await client.post(PATH, json={"input": "x", "previous_response_id": reply["id"]})
    check_error(refused, 404, "not_found", "previous_response_id")


async def test_a_server_that_keeps_nothing() -> None:
    engine = FakeEngine(fake_config(max_stored_responses=0))
    async with make_client(engine) as client:
        reply = await respond(client)
        assert reply["store"] is False
        check_error(await client.get(f"{PATH}/{reply['id']}"), 404, "not_found", "response_id")
        refused = await client.post(PATH, json={"input": "x", "store": True})
        check_error(refused, 400, "unsupported_value", "store")
        refused = await client.post(PATH, json={"input": "x", "background": True})
        check_error(refused, 400, "invalid_value", "background")


async def test_the_oldest_make_room() -> None:
    engine = FakeEngine(fake_config(max_stored_responses=2))
    async with make_client(engine) as client:
        ids = [(await respond(client))["id"] for _ in range(3)]
        assert [(await client.get(f"{PATH}/{one}")).status_code for one in ids] == [404, 200, 200]


@pytest.mark.parametrize("response_id", ["resp_", "r", "%00", "x" * 5000, "resp_" + "0" * 32, "..", "a%2Fb"])
async def test_unknown_ids(response_id: str, client: httpx.AsyncClient) -> None:
    await respond(client)
    assert (await client.get(f"http://test{PATH}/{response_id}")).status_code == 404


async def test_u07_nobody_sees_what_another_key_made() -> None:
    engine = FakeEngine(fake_config(api_key=["one", "two"]))
    engine.stall_at = 3
    async with make_client(engine, "one") as client:
        engine.stall_at = None
        reply = await respond(client)
        engine.stall_at = 3
        running = await respond(client, background=True)
        item_id = reply["output"][0]["id"]
        theirs = {"authorization": "Bearer two"}
        for made in (reply, running):
            path = f"{PATH}/{made['id']}"
            for method, where in (
                ("GET", path),
                ("DELETE", path),
                ("POST", path + "/cancel"),
                ("GET", path + "/input_items"),
                ("GET", path + "?stream=true"),
            ):
                answer = await client.request(method, where, headers=theirs)
                check_error(answer, 404, "not_found", "response_id")
        continued = {"input": "x", "previous_response_id": reply["id"]}
        check_error(
            await client.post(PATH, json=continued, headers=theirs), 404, "not_found", "previous_response_id"
        )
        referred = {"input": [{"type": "item_reference", "id": item_id}]}
        check_error(await client.post(PATH, json=referred, headers=theirs), 404, "not_found", "input[0].id")
        assert (await client.get(f"{PATH}/{reply['id']}")).json() == reply
        assert (await client.get(f"{PATH}/{running['id']}")).json()["status"] in ("queued", "in_progress")
        await client.delete(f"{PATH}/{running['id']}")


async def test_a_conversation_goes_on(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = await respond(client, input="one", instructions="be A")
    second = await respond(client, input="two", instructions="be B", previous_response_id=first["id"])
    third = await respond(client, input="three", previous_response_id=second["id"])
    texts = [reply["output"][0]["content"][0]["text"] for reply in (first, second)]
    rendered = engine.tokenizer.rendered[-1]["messages"]
    assert [(m["role"], m["content"]) for m in rendered] == [
        ("user", "one"),
        ("assistant", texts[0]),
        ("user", "two"),
        ("assistant", texts[1]),
        ("user", "three"),
    ]
    assert engine.tokenizer.rendered[-2]["messages"][0] == {"role": "system", "content": "be B"}
    assert third["previous_response_id"] == second["id"] and third["instructions"] is None
    await client.delete(f"{PATH}/{first['id']}")
    broken = await client.post(PATH, json={"input": "x", "previous_response_id": third["id"]})
    check_error(broken, 404, "not_found", "previous_response_id")


async def test_references_and_no_item_twice(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = await respond(client, input="one", store=True)
    item = first["output"][0]
    await respond(
        client, input=[{"type": "item_reference", "id": item["id"]}, {"role": "user", "content": "two"}]
    )
    assert [m["role"] for m in engine.tokenizer.rendered[-1]["messages"]] == ["assistant", "user"]
    again = {"input": [{"id": item["id"]}], "previous_response_id": first["id"]}
    check_error(await client.post(PATH, json=again), 400, "invalid_value", "input[0].id")
    again = {"input": [item], "previous_response_id": first["id"]}
    check_error(await client.post(PATH, json=again), 400, "invalid_value", "input[0].id")
    await respond(
        client, input=[{"role": "user", "content": "one"}, item, {"role": "user", "content": "two"}]
    )


async def test_tools_over_two_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    use_markup(monkeypatch)
    engine = ScriptedEngine(fake_config(), script='<think>t</think>a<call f>{"x": 1}</call><call g>{}</call>')
    async with make_client(engine) as client:
        first = await respond(client)
        outputs = [{"type": "function_call_output", "call_id": f"call_{k}", "output": str(k)} for k in (1, 2)]
        await respond(client, input=outputs, previous_response_id=first["id"])
        _, turn, *results = engine.tokenizer.rendered[-1]["messages"]
        assert turn["reasoning_content"] == "t" and turn["content"] == "a" and len(turn["tool_calls"]) == 2
        assert [(m["role"], m["content"], m["name"]) for m in results] == [
            ("tool", "1", "f"),
            ("tool", "2", "g"),
        ]


async def test_a_call_that_was_cut_is_not_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    use_markup(monkeypatch)
    engine = ScriptedEngine(fake_config(), script='say<call f>{"x', finish_reason="length")
    async with make_client(engine) as client:
        first = await respond(client)
        await respond(client, input="go on", previous_response_id=first["id"])
    assert [m["role"] for m in engine.tokenizer.rendered[-1]["messages"]] == ["user", "assistant", "user"]
    assert "tool_calls" not in engine.tokenizer.rendered[-1]["messages"][1]


async def test_chains_are_bounded(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_CHAIN", 3)
    last: dict[str, Any] = {"id": None}
    for _ in range(4):
        last = await respond(client, input="x", max_output_tokens=1, previous_response_id=last["id"])
    refused = await client.post(PATH, json={"input": "x", "previous_response_id": last["id"]})
    check_error(refused, 400, "invalid_value", "previous_response_id")
    monkeypatch.setattr(history, "MAX_CHAIN", 9)
    monkeypatch.setattr(history, "MAX_CHAIN_BYTES", 2000)
    refused = await client.post(PATH, json={"input": "x", "previous_response_id": last["id"]})
    check_error(refused, 400, "invalid_value", "previous_response_id")


async def test_a_circle_is_refused(tmp_path: Path) -> None:
    engine = FakeEngine(fake_config(**stored_options(tmp_path)))
    async with make_client(engine) as client:
        first = await respond(client)
        second = await respond(client, previous_response_id=first["id"])
        shelf = _shelf_of(client)
        data = json.loads(await shelf.get(first["id"]) or b"")
        data["reply"]["previous_response_id"] = second["id"]
        await shelf.put("", first["id"], json.dumps(data).encode())
        refused = await client.post(PATH, json={"input": "x", "previous_response_id": second["id"]})
        check_error(refused, 400, "invalid_value", "previous_response_id")
        listed = await client.get(f"{PATH}/{second['id']}/input_items?limit=100")
        assert listed.status_code == 200
        shelf.close()


async def test_input_items_in_pages(client: httpx.AsyncClient) -> None:
    first = await respond(client, input=[{"role": "user", "content": str(k)} for k in range(3)])
    second = await respond(client, input="last", previous_response_id=first["id"])
    path = f"{PATH}/{second['id']}/input_items"
    every = (await client.get(path + "?order=asc")).json()
    texts = [item["content"][0]["text"] for item in every["data"]]
    assert texts == ["0", "1", "2", first["output"][0]["content"][0]["text"], "last"]
    assert not every["has_more"] and every["object"] == "list"
    page = (await client.get(path + f"?limit=2&after={every['data'][4]['id']}")).json()
    assert [item["content"][0]["text"] for item in page["data"]] == [texts[3], "2"]
    assert page["has_more"] and (page["first_id"], page["last_id"]) == (
        every["data"][3]["id"],
        every["data"][2]["id"],
    )
    await client.delete(f"{PATH}/{first['id']}")
    assert len((await client.get(path)).json()["data"]) == 1


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "order=up", "after=nothing", "after=" + "x" * 99]
)
async def test_bad_pages(query: str, client: httpx.AsyncClient) -> None:
    reply = await respond(client)
    answer = await client.get(f"{PATH}/{reply['id']}/input_items?{query}")
    check_error(answer, 400, "invalid_value", query.split("=")[0])


async def test_a_restart_with_sqlite(tmp_path: Path) -> None:
    options = stored_options(tmp_path)
    engine = FakeEngine(fake_config(api_key=["k"], **options))
    async with make_client(engine, "k") as client:
        kept = await respond(client, input="one")
        engine.stall_at = 2
        running = await respond(client, background=True)
        await asyncio.sleep(0.05)
        await _library_of(client).close()
        assert engine.num_open == 0
    again = FakeEngine(fake_config(api_key=["k", "other"], **options))
    async with make_client(again, "k") as client:
        assert (await client.get(f"{PATH}/{kept['id']}")).json() == kept
        await respond(client, input="two", previous_response_id=kept["id"])
        assert len(again.tokenizer.rendered[-1]["messages"]) == 3
        lost = (await client.get(f"{PATH}/{running['id']}")).json()
        assert lost["status"] == "failed" and lost["error"]["code"] == "server_error"
        theirs = await client.get(f"{PATH}/{kept['id']}", headers={"authorization": "Bearer other"})
        check_error(theirs, 404, "not_found", "response_id")
        _shelf_of(client).close()


async def test_a_store_that_fails_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(fake_config(**stored_options(tmp_path)))
    async with make_client(engine) as client:
        kept = await respond(client)
        shelf = _shelf_of(client)
        shelf._file.execute("DROP TABLE responses")
        assert (await respond(client))["output"]
        assert "cannot be stored" in caplog.text and str(tmp_path) not in caplog.text
        check_error(await client.get(f"{PATH}/{kept['id']}"), 500, "internal_error", None)
        check_error(await client.get(f"{PATH}/{'x'}"), 500, "internal_error", None)
        shelf.close()


def _library_of(client: httpx.AsyncClient) -> Any:
    """The application's own, found by what its route closes over."""
    app: Any = client._transport.app  # type: ignore[attr-defined]
    route = next(route for route in app.routes if route.path == PATH)
    names = route.endpoint.__code__.co_freevars
    return route.endpoint.__closure__[names.index("library")].cell_contents


def _shelf_of(client: httpx.AsyncClient) -> Any:
    return _library_of(client)._store._shelf
