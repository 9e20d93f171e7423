"""The events of a streamed response: their order, their numbers, and that they add up to the plain reply."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from responses_replies import PATH, comparable, events_of, kinds_of, make_client, respond, stream
from scripted_engine import ScriptedEngine, use_markup
from server_fakes import FakeEngine, fake_config

from octavo.engine.outputs import Logprob
from octavo.server.openai.responses.token_logprobs import TokenLogprobs

MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
REASONING = [
    "output_item.added",
    "content_part.added",
    "reasoning_text.delta",
    "reasoning_text.done",
    "content_part.done",
    "output_item.done",
]
SUMMARY = [
    "output_item.added",
    "reasoning_summary_part.added",
    "reasoning_summary_text.delta",
    "reasoning_summary_text.done",
    "reasoning_summary_part.done",
    "output_item.done",
]
CALL = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]
ALL = '<think>hmm</think>look<call f>{"x": 1}</call><call g>{}</call>done'

event_type: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    use_markup(monkeypatch)
    return ScriptedEngine(fake_config(), script=ALL, piece=1000)


def check_sequence(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Every event is the official type's; numbers count; items nest and add up. Returns the last response."""
    for event in events:
        event_type.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds_of(events)[:2] == ["created", "in_progress"]
    last: dict[str, Any] = events[-1]["response"]
    done: list[dict[str, Any]] = []
    open_item: dict[str, Any] | None = None
    text = ""
    for event in events[2:-1]:
        kind = event["type"].removeprefix("response.")
        assert event["output_index"] == len(done)
        if kind == "output_item.added":
            assert open_item is None and event["item"]["status"] == "in_progress"
            open_item, text = event["item"], ""
            continue
        assert open_item is not None
        if kind == "output_item.done":
            assert event["item"]["id"] == open_item["id"] and event["item"]["type"] == open_item["type"]
            assert event["item"]["status"] in ("completed", "incomplete")
            done.append(event["item"])
            open_item = None
            continue
        assert event["item_id"] == open_item["id"]
        text += event.get("delta", "")
        assert event.get("text", text) == text and event.get("arguments", text) == text
        if kind.endswith("part.done"):
            assert event["part"]["text"] == text
    assert open_item is None and done == last["output"]
    return last


async def test_the_full_sequence(scripted: ScriptedEngine) -> None:
    async with make_client(scripted) as client:
        events = await stream(client)
    expected = ["created", "in_progress", *REASONING, *MESSAGE, *CALL, *CALL, *MESSAGE, "completed"]
    assert kinds_of(events) == expected
    last = check_sequence(events)
    assert [item["type"] for item in last["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    assert [item["id"].split("_")[0] for item in last["output"]] == ["rs", "msg", "fc", "fc", "msg"]
    call = last["output"][2]
    assert (call["name"], call["arguments"], call["call_id"]) == ("f", '{"x": 1}', "call_1")
    assert last["usage"]["output_tokens_details"]["reasoning_tokens"] == 1
    assert last["status"] == "completed" and last["completed_at"] >= last["created_at"]
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []


async def test_a_summary_where_one_is_asked_for(scripted: ScriptedEngine) -> None:
    async with make_client(scripted) as client:
        events = await stream(client, reasoning={"summary": "auto"})
    assert kinds_of(events)[2:8] == SUMMARY
    thought = check_sequence(events)["output"][0]
    assert thought["summary"] == [{"type": "summary_text", "text": "hmm"}] and thought["content"] == []


@pytest.mark.parametrize("script", ["", "<think>hm", "text", "<call f>{"])
async def test_what_is_cut_says_so(script: str, scripted: ScriptedEngine) -> None:
    scripted.script, scripted.finish_reason = script, "length"
    async with make_client(scripted) as client:
        events = await stream(client)
    last = check_sequence(events)
    assert events[-1]["type"] == "response.incomplete"
    assert last["incomplete_details"] == {"reason": "max_output_tokens"} and last["completed_at"] is None
    assert len(last["output"]) == 1


async def test_an_empty_answer_is_an_empty_message(scripted: ScriptedEngine) -> None:
    scripted.script = ""
    async with make_client(scripted) as client:
        reply = await respond(client)
    assert reply["status"] == "completed"
    assert [part["text"] for part in reply["output"][0]["content"]] == [""]


PIECES = st.one_of(
    st.text("ab <\né", min_size=1, max_size=6),
    st.text("xy z", min_size=1, max_size=5).map(lambda text: f"<think>{text}</think>"),
    st.sampled_from(['{"x": "a b"}', "{}", ""]).map(lambda text: f"<call f>{text}</call>"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(PIECES, max_size=6),
    piece=st.integers(1, 9),
    reason=st.sampled_from(["stop", "length"]),
    has_summary=st.booleans(),
)
def test_a_stream_adds_up_to_the_plain_reply(
    pieces: list[str], piece: int, reason: str, has_summary: bool, scripted: ScriptedEngine
) -> None:
    scripted.script, scripted.piece, scripted.finish_reason = "".join(pieces), piece, reason
    body: dict[str, Any] = {"reasoning": {"summary": "auto"}} if has_summary else {}

    async def both() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        async with make_client(scripted) as client:
            return await stream(client, **body), await respond(client, **body)

    events, plain = asyncio.run(both())
    assert comparable(check_sequence(events)) == comparable(plain)


@pytest.mark.parametrize("trouble", ["fail_at", "crash_at"])
async def test_trouble_is_the_last_event(trouble: str, engine: FakeEngine, client: httpx.AsyncClient) -> None:
    setattr(engine, trouble, 3)
    events = await stream(client)
    assert kinds_of(events)[-1] == "failed"
    last = events[-1]["response"]
    assert last["status"] == "failed" and last["error"]["code"] == "server_error"
    assert "secret" not in last["error"]["message"] and last["usage"] is None
    event_type.validate_python(events[-1])
    kept = await client.get(f"{PATH}/{last['id']}")
    assert kept.json() == last


async def test_trouble_before_the_first_token_is_an_event_too(
    engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.fail_at = 0
    assert kinds_of(await stream(client)) == ["created", "in_progress", "failed"]


async def test_there_is_no_done_marker(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"input": "x", "stream": True})
    assert b"[DONE]" not in response.content and len(events_of(response)) > 5


class WordTokens:
    """Tokens are words, by their number."""

    words = ("<think>", "hm", "</think>", "\n\n", "é"[:0], "Hel", "lo", " you", "<call>", "{}", "x")

    def token_text(self, token_id: int) -> str:
        return self.words[token_id]

    def token_bytes(self, token_id: int) -> bytes:
        return {20: b"\xc3", 21: b"\xa9"}.get(token_id) or self.words[token_id].encode()


def make_aligner() -> TokenLogprobs:
    return TokenLogprobs(WordTokens(), 0)  # type: ignore[arg-type]


def came(aligner: TokenLogprobs, *token_ids: int) -> None:
    positions = [{token: Logprob(-float(token), 1, f"t{token}")} for token in token_ids]
    aligner.came(list(token_ids), positions)


def test_markers_are_no_tokens_of_the_answer() -> None:
    aligner = make_aligner()
    came(aligner, 0, 1)
    aligner.drop()
    came(aligner, 2, 3, 5)
    assert [entry.token for entry in aligner.of("Hel")] == ["t5"]
    came(aligner, 6)
    assert [entry.token for entry in aligner.of("lo")] == ["t6"]
    came(aligner, 7, 8)
    assert [entry.token for entry in aligner.of(" you")] == ["t7"]
    aligner.drop()
    came(aligner, 9, 10)
    assert [entry.token for entry in aligner.of("x")] == ["t10"]


def test_a_character_of_two_tokens_has_both() -> None:
    aligner = make_aligner()
    came(aligner, 20)
    came(aligner, 21)
    assert [entry.logprob for entry in aligner.of("é")] == [-20.0, -21.0]


def test_text_that_no_token_holds_takes_what_waits() -> None:
    aligner = make_aligner()
    came(aligner, 20)
    assert [entry.logprob for entry in aligner.of("�")] == [-20.0]
    assert aligner.of("more") == []


def test_what_waits_is_bounded() -> None:
    aligner = make_aligner()
    for _ in range(100):
        came(aligner, *[1] * 100)
    assert len(aligner._waiting) == 4096
