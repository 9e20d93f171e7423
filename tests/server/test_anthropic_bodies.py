"""What /v1/messages makes of a body, and the table of bodies it refuses."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine

from octavo.base.errors import RequestError
from octavo.server.anthropic.body import MessagesBody
from octavo.server.anthropic.messages import read_messages
from octavo.server.anthropic.tools import read_choice, read_tools
from octavo.server.anthropic.translate import chat_of
from octavo.server.body import validate

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "f", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": [1, "é"]}}
MARK = {"cache_control": {"type": "ephemeral"}}


def body_of(**fields: Any) -> MessagesBody:
    return validate({"model": "fake", "max_tokens": 4, "messages": HELLO, **fields}, MessagesBody)


def messages_of(**fields: Any) -> list[dict[str, Any]]:
    return [message.plain() for message in read_messages(body_of(**fields)).messages]


def user(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": list(blocks)}]


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def check_refused(response: httpx.Response, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    reply = response.json()
    assert list(reply) == ["type", "error", "request_id"] and reply["type"] == "error"
    assert reply["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert list(reply["error"]) == ["type", "message"] and reply["error"]["type"] == kind
    message: str = reply["error"]["message"]
    assert message.endswith(".") and len(message) < 500
    for secret in ("Traceback", "object at 0x", "octavo.", "/work", "pydantic", "msgspec", "Error("):
        assert secret not in message
    return message


def test_a_whole_conversation() -> None:
    messages = [
        {"role": "user", "content": [text("a"), text("b")]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "whatever"},
                {"type": "redacted_thinking", "data": "xyz"},
                text("look"),
                CALL,
                {**CALL, "id": "c2"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "1"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [text("2"), text("3")],
                    "is_error": True,
                },
                text("now?"),
            ],
        },
        {"role": "user", "content": "well?"},
    ]
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x":[1,"é"]}'}}
    assert messages_of(messages=messages, system=[text("s1"), text("s2")]) == [
        {"role": "system", "content": "s1\ns2"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "look",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", **call}, {"id": "c2", **call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: 2\n3"},
        {"role": "user", "content": "now?\nwell?"},
    ]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({}, ""),
        ({"content": []}, ""),
        ({"content": "error 5", "is_error": True}, "error 5"),
        ({"content": "no such file", "is_error": True}, "Error: no such file"),
        ({"is_error": True}, "Error: "),
        ({"content": "fine", "is_error": False}, "fine"),
    ],
)
def test_tool_results(result: dict[str, Any], expected: str) -> None:
    block = {"type": "tool_result", "tool_use_id": "c1", **result}
    assert messages_of(messages=user(block))[0]["content"] == expected


def test_the_note_of_coding_agents_is_left_out() -> None:
    note = text("x-anthropic-billing-header: cc_version=2.1; cch=0a1b2;")
    assert messages_of(system=[note, text("be kind")])[0] == {"role": "system", "content": "be kind"}
    assert messages_of(system=[note])[0]["role"] == "user"


def test_system_messages_between_turns() -> None:
    messages = [*HELLO, {"role": "system", "content": "be brief"}, {"role": "user", "content": "go on"}]
    assert [message["role"] for message in messages_of(messages=messages)] == ["user", "system", "user"]


def test_tools_become_functions() -> None:
    tools = [
        {"name": "a", "input_schema": {"type": "object"}, "type": "custom", "strict": True, **MARK},
        {"name": "b", "description": "d", "input_schema": {}, "input_examples": [{"x": 1}]},
    ]
    assert read_tools(tools) == [
        {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}, "strict": True}},
        {
            "type": "function",
            "function": {"name": "b", "parameters": {}, "description": 'd\nExample input: {"x":1}'},
        },
    ]
    assert read_tools(None) == read_tools([]) == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {}),
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_choices(choice: Any, expected: dict[str, Any]) -> None:
    assert read_choice(choice, ["f"]) == expected


def test_a_choice_without_tools() -> None:
    assert read_choice({"type": "auto"}, []) == read_choice({"type": "none"}, []) == {}
    with pytest.raises(RequestError, match="no tools"):
        read_choice({"type": "any"}, [])


@pytest.mark.parametrize(
    ("thinking", "is_on"),
    [
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, True),
        ({"type": "adaptive", "display": "summarized"}, True),
    ],
)
def test_thinking_is_a_switch_of_the_template(thinking: Any, is_on: bool) -> None:
    body = body_of(thinking=thinking)
    chat = chat_of(body, read_messages(body))
    assert chat.chat_template_kwargs == {"enable_thinking": is_on, "thinking": is_on}


def test_effort_and_defaults() -> None:
    body = body_of(output_config={"effort": "max"})
    chat = chat_of(body, read_messages(body))
    assert chat.reasoning_effort == "high" and chat.chat_template_kwargs is None and chat.max_tokens is None


def test_a_long_conversation_takes_linear_time() -> None:
    """Blocks of one side are joined once: 200,000 of them are no attack."""
    found = messages_of(messages=user(*[text("x")] * 200_000))
    assert len(found) == 1 and len(found[0]["content"]) == 399_999


Case = tuple[str, dict[str, Any], str]

REFUSED: list[Case] = [
    ("no max_tokens", {"max_tokens": None}, "max_tokens"),
    ("V06 negative", {"max_tokens": -1}, "max_tokens"),
    ("V06 float", {"max_tokens": 1.5}, "max_tokens"),
    ("V06 bool", {"max_tokens": True}, "max_tokens"),
    ("V01 number", {"model": 5}, "model"),
    ("V01 missing", {"model": None}, "model"),
    ("no messages", {"messages": []}, "messages"),
    ("messages a string", {"messages": "x"}, "messages"),
    ("message a string", {"messages": ["x"]}, "messages[0]"),
    ("unknown role", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ("content missing", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("content null", {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ("content number", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ("content empty", {"messages": user()}, "messages[0].content"),
    ("block a string", {"messages": user("x")}, "messages[0].content[0]"),
    ("block without type", {"messages": user({"text": "x"})}, "messages[0].content[0].type"),
    ("block type number", {"messages": user({"type": 5})}, "messages[0].content[0].type"),
    ("text number", {"messages": user({"type": "text", "text": 5})}, "messages[0].content[0].text"),
    ("image", {"messages": user(text("x"), {"type": "image", "source": {}})}, "'image'"),
    ("document", {"messages": user({"type": "document", "source": {}})}, "'document'"),
    ("server result", {"messages": user({"type": "web_search_tool_result"})}, "'web_search_tool_result'"),
    ("user calls", {"messages": user(CALL)}, "'tool_use'"),
    ("result without id", {"messages": user({"type": "tool_result"})}, "tool_use_id"),
    (
        "image in a result",
        {"messages": user({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]})},
        "messages[0].content[0].content[0]",
    ),
    ("call last", {"messages": [*HELLO, {"role": "assistant", "content": [CALL]}]}, "tool_result"),
    (
        "call without input",
        {"messages": [*HELLO, {"role": "assistant", "content": [{**CALL, "input": "x"}]}]},
        "messages[1].content[0].input",
    ),
    (
        "thinking without text",
        {"messages": [*HELLO, {"role": "assistant", "content": [{"type": "thinking"}]}]},
        "messages[1].content[0].thinking",
    ),
    (
        "server call",
        {"messages": [*HELLO, {"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
        "'server",
    ),
    ("system number", {"system": 5}, "system"),
    ("system image", {"system": [{"type": "image"}]}, "system[0]"),
    ("only system", {"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ("temperature", {"temperature": -1.0}, "temperature"),
    ("temperature string", {"temperature": "hot"}, "temperature"),
    ("top_k", {"top_k": -1}, "top_k"),
    ("top_p", {"top_p": 2.0}, "top_p"),
    ("stop number", {"stop_sequences": [5]}, "stop_sequences[0]"),
    ("stop empty", {"stop_sequences": [""]}, "stop_sequences[0]"),
    ("stop string", {"stop_sequences": "x"}, "stop_sequences"),
    ("stop many", {"stop_sequences": ["x"] * 1000}, "stop_sequences"),
    ("stream", {"stream": "yes"}, "stream"),
    ("tools object", {"tools": {}}, "tools"),
    ("tool string", {"tools": ["x"]}, "tools[0]"),
    ("tool name", {"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
    ("G10 tool name", {"tools": [{"name": 'x"\n', "input_schema": {}}]}, "tools[0].name"),
    ("tool schema", {"tools": [{"name": "a"}]}, "tools[0].input_schema"),
    ("tool description", {"tools": [{**TOOL, "description": 5}]}, "tools[0].description"),
    ("tool strict", {"tools": [{**TOOL, "strict": "yes"}]}, "tools[0].strict"),
    ("G10 tools twice", {"tools": [TOOL, TOOL]}, "2 times"),
    (
        "server tool",
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "'web_search_20250305'",
    ),
    ("client tool", {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "'bash_20250124'"),
    ("deferred tool", {"tools": [{**TOOL, "defer_loading": True}]}, "defer_loading"),
    ("callers", {"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]}, "allowed_callers"),
    ("examples", {"tools": [{**TOOL, "input_examples": ["x"]}]}, "input_examples"),
    ("choice string", {"tools": [TOOL], "tool_choice": "auto"}, "tool_choice"),
    ("choice type", {"tools": [TOOL], "tool_choice": {"type": "best"}}, "tool_choice"),
    ("V14 missing tool", {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
    ("choice without tools", {"tool_choice": {"type": "any"}}, "tool_choice"),
    ("thinking kind", {"thinking": {"type": "between_tools"}}, "thinking.type"),
    ("thinking budget missing", {"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ("thinking budget", {"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
    ("effort", {"output_config": {"effort": "total"}}, "output_config.effort"),
    ("format", {"output_config": {"format": {"type": "regex"}}}, "output_config.format.type"),
    ("schema missing", {"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ("cache kind", {"messages": user(text("x", cache_control={"type": "for ever"}))}, "cache_control"),
    ("cache ttl", {"messages": user(text("x", cache_control={"type": "ephemeral", "ttl": "1y"}))}, "ttl"),
    ("cache ttl list", {"messages": user(text("x", cache_control={"type": "ephemeral", "ttl": []}))}, "ttl"),
    ("cache string", {"system": [text("x", cache_control="yes")]}, "system[0].cache_control"),
    ("cache at the top", {"cache_control": {"type": "ephemeral", "ttl": "2m"}}, "cache_control.ttl"),
    ("five breakpoints", {"messages": user(*[text("x", **MARK)] * 5)}, "At most 4"),
    (
        "context edits",
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        "edits[0].type",
    ),
    ("context list", {"context_management": []}, "context_management"),
    ("context edit", {"context_management": {"edits": ["x"]}}, "edits[0].type"),
    ("mcp", {"mcp_servers": [{"url": "http://x"}]}, "mcp_servers"),
    ("container", {"container": "c"}, "container"),
    ("speed", {"speed": "fast"}, "speed"),
    ("geo", {"inference_geo": "eu"}, "inference_geo"),
    ("compaction", {"compaction": {}}, "compaction"),
    ("fallbacks", {"fallbacks": [{"model": "x"}]}, "fallbacks"),
    ("V04 long", {"messages": [{"role": "user", "content": "x" * 600}]}, "at most 512"),
    ("V04 absurd", {"messages": [{"role": "user", "content": "x" * 100_000}]}, "characters"),
]


@pytest.mark.parametrize(
    ("fields", "part"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
async def test_refused(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any], part: str
) -> None:
    body = {"model": "fake", "max_tokens": 4, "messages": HELLO}
    response = await client.post("/v1/messages", json={**body, **fields})
    message = check_refused(response, 400, "invalid_request_error")
    assert part in message, message
    assert not engine.seen
    assert (await client.post("/v1/messages", json=body)).status_code == 200


COUNTABLE = {"messages", "content", "image", "system", "tools", "tool", "choice", "thinking", "cache"}


async def test_count_tokens_refuses_the_same(client: httpx.AsyncClient) -> None:
    for name, fields, part in REFUSED:
        if name.split()[0] in COUNTABLE:
            body = {"model": "fake", "messages": HELLO, **fields}
            response = await client.post("/v1/messages/count_tokens", json=body)
            assert part in check_refused(response, 400, "invalid_request_error"), name


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_errors_around_the_body(client: httpx.AsyncClient, path: str) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b"", b"[]", b'{"max_tokens": 1e999}', b"\xff\xfe", b"[" * 40_000):
        response = await client.post(path, content=content, headers=headers)
        check_refused(response, 400, "invalid_request_error")
    check_refused(await client.post(path, content=b"{}"), 415, "invalid_request_error")
    response = await client.get(path)
    check_refused(response, 405, "invalid_request_error")
    assert response.headers["allow"] == "POST"
    too_long = {"content-length": str(10**12), **headers}
    check_refused(await client.post(path, content=b"{}", headers=too_long), 413, "request_too_large")
    body = {"model": "m" * 100_000, "messages": HELLO, "max_tokens": 1}
    check_refused(await client.post(path, json=body), 404, "not_found_error")
    check_refused(await client.post("/v1/messages/batches", json=body), 404, "not_found_error")


async def test_harmless_fields_and_headers(client: httpx.AsyncClient) -> None:
    body = {
        "model": "fake",
        "max_tokens": 1,
        "messages": HELLO,
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "inference_geo": "global",
        "speed": "standard",
        "container": None,
        "mcp_servers": [],
        "diagnostics": {"previous_message_id": None},
        "tools": [],
        "context_management": {"edits": []},
        "__proto__": {"x": 1},
        "kv_transfer_params": {"x": 1},
    }
    headers = {"anthropic-version": "1999-01-01", "anthropic-beta": "one,two"}
    response = await client.post("/v1/messages?beta=true", json=body, headers=headers)
    assert response.status_code == 200 and response.json()["type"] == "message"
    assert json.loads(response.content)["stop_details"] is None


async def test_what_can_be_done_about_tools_is_said_in_words_of_this_api(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.tokenizer.chat_template = "fake"
    body = {
        "model": "fake",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [TOOL],
    }
    error = (await client.post("/v1/messages", json=body)).json()["error"]
    assert "Set tool_choice to 'any' or to a tool, which works" in error["message"]
