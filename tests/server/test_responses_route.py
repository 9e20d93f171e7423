"""POST /v1/responses: what the engine is asked, what comes back."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai.types.responses as types
import pytest
from responses_replies import CALL, OUTPUT, PATH, make_client, respond, say, stream
from scripted_engine import ScriptedEngine
from server_fakes import FakeEngine, answer_text, fake_config
from server_replies import check_error

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.openai.responses.body import ResponsesBody
from octavo.server.openai.responses.fields import ELSEWHERE

HELLO_IDS = [*b"[user]hello[assistant]"]
SETTINGS = {
    "model": "alias",
    "instructions": "be brief",
    "max_output_tokens": 5,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "prompt_cache_key": "k",
    "reasoning": {"effort": "low", "summary": "auto"},
    "safety_identifier": "s",
    "temperature": 0.5,
    "top_p": 0.9,
    "truncation": "auto",
    "user": "u",
    "store": False,
}


async def test_the_reply_is_what_the_official_type_expects(client: httpx.AsyncClient) -> None:
    reply = await respond(client, max_output_tokens=4)
    parsed = types.Response.model_validate(reply, strict=False)
    assert parsed.output_text == answer_text(HELLO_IDS, 0, 4)
    assert parsed.status == "incomplete" and parsed.incomplete_details is not None
    assert parsed.incomplete_details.reason == "max_output_tokens"
    assert parsed.usage is not None and parsed.usage.input_tokens == len(HELLO_IDS)
    assert parsed.usage.input_tokens_details.cached_tokens == len(HELLO_IDS) // 2
    assert parsed.usage.output_tokens == 4 and parsed.usage.output_tokens_details.reasoning_tokens == 0
    assert types.Response.model_fields.keys() >= reply.keys() - {"store"}
    message = parsed.output[0]
    assert isinstance(message, types.ResponseOutputMessage)
    assert message.id.startswith("msg_") and message.status == "incomplete"


async def test_settings_are_echoed(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = await respond(client, **SETTINGS)
    for name, value in SETTINGS.items():
        assert reply[name] == value, name
    assert reply["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert (reply["tool_choice"], reply["tools"], reply["service_tier"]) == ("auto", [], "default")
    params = engine.seen[-1][1]
    assert (params.temperature, params.top_p, params.max_tokens) == (0.5, 0.9, 5)
    assert engine.tokenizer.rendered[-1]["template_kwargs"]["reasoning_effort"] == "low"


async def test_defaults_of_the_checkpoint_are_shown() -> None:
    engine = FakeEngine(fake_config(), default_sampling={"temperature": 0.25})
    async with make_client(engine) as client:
        reply = await respond(client)
    assert (reply["temperature"], reply["top_p"]) == (0.25, 1.0)


async def test_sampling_fields_of_other_bodies_work_here(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await respond(client, top_k=3, min_p=0.2, seed=7, stop=["x"], logit_bias={"5": 1}, cache_salt="pepper")
    params, details = engine.seen[-1][1:]
    assert (params.top_k, params.min_p, params.seed, params.stop) == (3, 0.2, 7, ["x"])
    assert params.logit_bias == {5: 1.0} and details["cache_salt"] == "pepper"


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ("hi", [("user", "hi")]),
        ([say("system", "s"), say("user", "u")], [("system", "s"), ("user", "u")]),
        (
            [{"role": "user", "content": "a"}, say("assistant", "b", "output_text")],
            [("user", "a"), ("assistant", "b")],
        ),
        ([{"type": "message", **say("user", "a")}], [("user", "a")]),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}], [("assistant", "no")]),
        ([say("user", "q"), CALL, OUTPUT], [("user", "q"), ("assistant", None), ("tool", "42")]),
        (
            [
                say("user", "q"),
                CALL,
                {
                    **OUTPUT,
                    "output": [{"type": "input_text", "text": "4"}, {"type": "input_text", "text": "2"}],
                },
            ],
            [("user", "q"), ("assistant", None), ("tool", "4\n2")],
        ),
        (
            [say("assistant", "x", "output_text"), say("assistant", "y", "output_text")],
            [("assistant", "x"), ("assistant", "y")],
        ),
    ],
)
async def test_items_become_messages(
    value: Any, messages: list[tuple[str, str | None]], client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await respond(client, input=value)
    rendered = engine.tokenizer.rendered[-1]["messages"]
    assert [(message["role"], message["content"] or None) for message in rendered] == messages


async def test_one_turn_of_the_assistant_is_one_message(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    second = {**CALL, "call_id": "c2", "name": "g", "arguments": ""}
    said = say("assistant", "look", "output_text")
    await respond(client, input=[say("user", "q"), thought, said, CALL, second, OUTPUT, thought])
    _, turn, result, last = engine.tokenizer.rendered[-1]["messages"]
    assert (turn["role"], turn["content"], turn["reasoning_content"]) == ("assistant", "look", "hm")
    assert [call["function"]["name"] for call in turn["tool_calls"]] == ["f", "g"]
    assert turn["tool_calls"][0]["id"] == "c1"
    assert turn["tool_calls"][0]["function"]["arguments"] in ({"x": 1}, '{"x": 1}')
    assert (result["tool_call_id"], result["name"]) == ("c1", "f")
    assert last["role"] == "assistant" and last["reasoning_content"] == "hm"


async def test_instructions_and_first_system_messages_are_one(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await respond(
        client, instructions="A", input=[say("developer", "B"), say("user", "q"), say("system", "C")]
    )
    rendered = engine.tokenizer.rendered[-1]["messages"]
    assert [(m["role"], m["content"]) for m in rendered] == [
        ("system", "A\n\nB"),
        ("user", "q"),
        ("system", "C"),
    ]


async def test_summaries_stand_in_for_thoughts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so"}]}
    await respond(
        client, input=[say("user", "q"), thought, say("assistant", "a", "output_text"), say("user", "r")]
    )
    assert engine.tokenizer.rendered[-1]["messages"][1]["reasoning_content"] == "so"


async def test_auto_truncation_drops_whole_turns(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    turns = [
        item
        for k in range(20)
        for item in (say("user", f"{k:02} " + "x" * 40), say("assistant", "ok", "output_text"))
    ]
    items = [*turns, say("user", "the end")]
    refused = await client.post(
        PATH, json={"input": items, "instructions": "keep me", "max_output_tokens": 8}
    )
    check_error(refused, 400, "context_length_exceeded", "input")
    reply = await respond(client, input=items, instructions="keep me", max_output_tokens=8, truncation="auto")
    messages = engine.tokenizer.rendered[-1]["messages"]
    assert messages[0]["content"] == "keep me" and messages[-1]["content"] == "the end"
    assert messages[1]["role"] == "user" and len(engine.seen[-1][0]) + 8 <= 512
    one_more = len("[user]00 ") + 40 + len("[assistant]ok")
    assert len(engine.seen[-1][0]) + 8 + one_more > 512, "no more is dropped than must be"
    assert reply["truncation"] == "auto"


async def test_auto_truncation_cannot_shorten_the_last_turn(client: httpx.AsyncClient) -> None:
    items = [say("user", "a"), say("user", "x" * 600)]
    response = await client.post(PATH, json={"input": items, "truncation": "auto"})
    check_error(response, 400, "context_length_exceeded", "input")


async def test_log_probabilities(client: httpx.AsyncClient) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "max_output_tokens": 3}
    reply = await respond(client, **asked)
    part = reply["output"][0]["content"][0]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [2, 2, 2]
    assert reply["top_logprobs"] == 2
    events = await stream(client, **asked)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [entry for event in deltas for entry in event["logprobs"]] == part["logprobs"]
    (plain,) = (await respond(client))["output"]
    assert plain["content"][0]["logprobs"] == []


async def test_engine_trouble_has_its_status(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.fail_at = 1
    check_error(await client.post(PATH, json={"input": "x"}), 500, "engine_failed", None)
    engine.fail_at, engine.refuse = None, EngineError("Full.", code=ErrorCode.OVERLOADED)
    refused = await client.post(PATH, json={"input": "x", "stream": True})
    check_error(refused, 503, "overloaded", None)
    assert refused.headers["retry-after"] == "1"


async def test_timings(client: httpx.AsyncClient) -> None:
    reply = await respond(client, timings=True, max_output_tokens=3)
    assert reply["timings"]["predicted_n"] == 3
    assert "timings" not in await respond(client)


def test_every_foreign_name_is_known() -> None:
    assert ELSEWHERE.keys() <= ResponsesBody.model_fields.keys()
    shown = ResponsesBody.model_json_schema()["properties"]
    assert not ELSEWHERE.keys() & shown.keys()


TOOL = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
}
OTHER = {"type": "function", "name": "g", "description": "does g", "strict": True}


async def test_tools_are_shown_to_the_model_and_echoed(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = await respond(client, tools=[TOOL, OTHER], parallel_tool_calls=False)
    shown = engine.tokenizer.rendered[-1]["tools"]
    assert [tool["function"]["name"] for tool in shown] == ["f", "g"]
    assert shown[0]["function"]["parameters"] == TOOL["parameters"]
    assert reply["tools"] == [{**TOOL, "strict": None}, {**OTHER, "parameters": None}]
    assert reply["parallel_tool_calls"] is False
    types.Response.model_validate(reply)
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}
    reply = await respond(client, tools=[TOOL, OTHER], tool_choice=choice)
    assert [tool["function"]["name"] for tool in engine.tokenizer.rendered[-1]["tools"]] == ["g"]
    assert reply["tool_choice"] == choice and len(reply["tools"]) == 2
    types.Response.model_validate(reply)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
async def test_a_call_that_must_be(choice: Any) -> None:
    script = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    engine = ScriptedEngine(fake_config(), script=script)
    async with make_client(engine) as client:
        reply = await respond(client, tools=[TOOL], tool_choice=choice)
        events = await stream(client, tools=[TOOL], tool_choice=choice)
    assert engine.seen[-1][1].structured_outputs is not None
    (call,) = reply["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "f", "completed")
    assert json.loads(call["arguments"]) == {"x": 1}
    deltas = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    assert len(deltas) > 1 and "".join(deltas) == call["arguments"]


async def test_forms(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "point", "schema": schema, "strict": True}
    reply = await respond(client, text={"format": form})
    assert reply["text"] == {"format": form, "verbosity": "medium"}
    assert engine.seen[-1][1].structured_outputs is not None
    types.Response.model_validate(reply)
    await respond(client, text={"format": {"type": "json_object"}})
    assert engine.seen[-1][1].structured_outputs is not None
    await respond(client, text={"format": {"type": "text"}})
    assert engine.seen[-1][1].structured_outputs is None
    schema["properties"]["x"] = {"type": 7}  # type: ignore[index]
    refused = await client.post(PATH, json={"input": "x", "text": {"format": form}})
    check_error(refused, 400, "unsupported_value", "text.format.schema.properties.x.type")
