"""/v1/chat/completions with tools: bodies, replies, streams, refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config
from server_replies import events
from spoken_engine import QWEN, SpokenEngine, TemplateTokenizer

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.app import create_app

HELLO = [{"role": "user", "content": "weather?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
NOW = {"type": "function", "function": {"name": "now", "description": "The time."}}
TOOLS = [WEATHER, NOW]
CALL = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TWO = CALL + '\n<tool_call>{"name": "now", "arguments": {}}</tool_call>'


class Desk:
    """Says yes to every form, and remembers it."""

    def __init__(self) -> None:
        self.forms: list[Any] = []

    async def check(self, form: Any) -> Any:
        self.forms.append(form)
        return form


@pytest.fixture
def engine() -> SpokenEngine:
    engine = SpokenEngine(fake_config(), tokenizer=TemplateTokenizer(), says=[CALL])
    engine.grammars = Desk()  # type: ignore[attr-defined]
    return engine


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine) as client:
        yield client


def client_of(engine: FakeEngine) -> httpx.AsyncClient:
    app = create_app(engine, engine.config.server, engine.config.observe)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(
        "/v1/chat/completions", json={"model": "fake", "messages": HELLO, "tools": TOOLS, **body}
    )


async def test_a_call(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    choice = (await ask(client)).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert message["content"] == "I look."
    (call,) = message["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    shown = engine.tokenizer.rendered[-1]["tools"]
    assert [tool["function"]["name"] for tool in shown] == ["get_weather", "now"]
    assert shown[1]["function"]["parameters"] == {"type": "object", "properties": {}}


async def test_content_is_null_beside_calls_only(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    engine.says = [TWO.removeprefix("I look.\n")]
    message = (await ask(client)).json()["choices"][0]["message"]
    assert message["content"] is None and len(message["tool_calls"]) == 2


async def test_streamed_calls(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    engine.says = [TWO]
    parts = events(await ask(client, stream=True, stream_options={"include_usage": True}))
    choices = [part["choices"][0] for part in parts[:-1]]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "I look."
    assert choices[-1]["finish_reason"] == "tool_calls" and parts[-1]["usage"]["completion_tokens"] > 0
    calls: dict[int, dict[str, Any]] = {}
    for choice in choices:
        for call in choice["delta"].get("tool_calls", []):
            if call["index"] not in calls:
                assert call["type"] == "function" and call["id"] and call["function"]["arguments"] == ""
                calls[call["index"]] = {"name": call["function"]["name"], "pieces": []}
            else:
                assert "id" not in call and "name" not in call["function"]
                calls[call["index"]]["pieces"].append(call["function"]["arguments"])
    assert [call["name"] for call in calls.values()] == ["get_weather", "now"]
    assert len(calls[0]["pieces"]) > 3
    assert json.loads("".join(calls[0]["pieces"])) == {"city": "Paris"}


@pytest.mark.parametrize("stream", [False, True])
async def test_n_answers(client: httpx.AsyncClient, engine: SpokenEngine, stream: bool) -> None:
    engine.says = [TWO, "It rains."]
    reply = await ask(client, n=2, stream=stream)
    if not stream:
        first, second = reply.json()["choices"]
        assert len(first["message"]["tool_calls"]) == 2 and first["finish_reason"] == "tool_calls"
        assert second["message"]["content"] == "It rains." and second["finish_reason"] == "stop"
        assert "tool_calls" not in second["message"]
        return
    reasons = {}
    text = ""
    for part in events(reply):
        choice = part["choices"][0]
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
        if choice["index"] == 1:
            text += choice["delta"].get("content", "")
            assert "tool_calls" not in choice["delta"]
    assert reasons == {0: "tool_calls", 1: "stop"} and text == "It rains."


async def test_one_call_at_most(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    engine.says = [TWO]
    message = (await ask(client, parallel_tool_calls=False)).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]


async def test_a_cut_call_keeps_its_reason(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    engine.says, engine.finish_reason = [CALL[:70]], "length"
    choice = (await ask(client)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "Par'


async def test_logprobs_and_ids_come_along(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    parts = events(await ask(client, stream=True, logprobs=True, return_token_ids=True))
    choices = [part["choices"][0] for part in parts]
    ids = [i for choice in choices for i in choice.get("token_ids") or []]
    assert ids == [ord(char) for char in CALL]
    entries = [e for choice in choices if choice["logprobs"] for e in choice["logprobs"]["content"]]
    assert len(entries) == len(CALL)


async def test_none_shows_no_tools(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    message = (await ask(client, tool_choice="none")).json()["choices"][0]["message"]
    assert message["content"] == CALL and "tool_calls" not in message
    assert engine.tokenizer.rendered[-1]["tools"] is None
    (await ask(client, tools=[])).raise_for_status()


async def test_forced_calls_have_a_form(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    (await ask(client, tool_choice="required")).raise_for_status()
    named = {"type": "function", "function": {"name": "now"}}
    (await ask(client, tool_choice=named)).raise_for_status()
    required, single = [params.structured_outputs for _, params, _ in engine.seen]
    assert required is not None and single is not None
    tags = required.structural_tag["format"]  # type: ignore[index]
    assert [tag["begin"].split('"')[3] for tag in tags["tags"]] == ["get_weather", "now"]
    assert tags["at_least_one"] and not tags["stop_after_first"]
    tags = single.structural_tag["format"]  # type: ignore[index]
    assert len(tags["tags"]) == 1 and tags["stop_after_first"]
    assert [tool["function"]["name"] for tool in engine.tokenizer.rendered[-1]["tools"]] == ["now"]


async def test_allowed_tools(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    (await ask(client, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})).raise_for_status()
    assert [tool["function"]["name"] for tool in engine.tokenizer.rendered[-1]["tools"]] == ["now"]
    assert engine.seen[-1][1].structured_outputs is not None


async def test_auto_has_a_form_only_if_strict(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    await ask(client)
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]
    await ask(client, tools=[strict, NOW])
    free, checked = [params.structured_outputs for _, params, _ in engine.seen]
    assert free is None and checked is not None
    form = checked.structural_tag["format"]  # type: ignore[index]
    assert form["type"] == "triggered_tags" and form["triggers"] == ["<tool_call>"]
    assert "strict" not in engine.tokenizer.rendered[-1]["tools"][0]["function"]


async def test_tools_and_an_answer_with_a_schema(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    (await ask(client, response_format=schema)).raise_for_status()
    form = engine.seen[-1][1].structured_outputs
    assert form is not None and form.structural_tag["format"]["type"] == "or"  # type: ignore[index]


async def test_older_names(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    functions = [tool["function"] for tool in TOOLS]
    body: dict[str, Any] = {"tools": None, "functions": functions}
    choice = (await ask(client, **body)).json()["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert "tool_calls" not in choice["message"]
    parts = events(await ask(client, **body, stream=True, function_call={"name": "get_weather"}))
    deltas = [
        p["choices"][0]["delta"]["function_call"]
        for p in parts
        if "function_call" in p["choices"][0]["delta"]
    ]
    assert deltas[0]["name"] == "get_weather"
    assert "".join(delta["arguments"] for delta in deltas) == '{"city": "Paris"}'
    assert engine.seen[-1][1].structured_outputs is not None
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
        {"role": "function", "name": "now", "content": "12:00"},
    ]
    (await ask(client, **body, messages=history)).raise_for_status()
    shown = engine.tokenizer.rendered[-1]["messages"]
    assert shown[1]["tool_calls"][0]["function"] == {"name": "now", "arguments": {}}
    assert shown[2]["role"] == "tool"


HISTORY = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": None,
        "reasoning": "I should look.",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
]


async def test_history(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    (await ask(client, messages=HISTORY)).raise_for_status()
    shown = engine.tokenizer.rendered[-1]["messages"]
    assert shown[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert shown[1]["reasoning_content"] == "I should look."
    assert shown[2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "get_weather"}


async def test_history_as_other_models_want_it(engine: SpokenEngine) -> None:
    engine.tokenizer = TemplateTokenizer("{{ tools }}[TOOL_CALLS][")
    async with client_of(engine) as client:
        (await ask(client, messages=HISTORY)).raise_for_status()
    shown = engine.tokenizer.rendered[-1]["messages"]
    short = shown[1]["tool_calls"][0]["id"]
    assert len(short) == 9 and short.isalnum() and shown[2]["tool_call_id"] == short
    engine.tokenizer = TemplateTokenizer(
        "{{ tools }}<｜tool▁call▁begin｜><｜tool▁sep｜>{{ ';' + call['function']['arguments'] }}"
    )
    async with client_of(engine) as client:
        (await ask(client, messages=HISTORY)).raise_for_status()
    assert (
        engine.tokenizer.rendered[-1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
        == '{"city": "Rome"}'
    )


async def test_a_template_without_tools(engine: SpokenEngine) -> None:
    engine.tokenizer = TemplateTokenizer("{{ messages }}")
    engine.says = ['{"name": "get_weather", "arguments": {"city": "Paris"}}']
    async with client_of(engine) as client:
        refused = await ask(client)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "tools"
        assert "tool_choice" in refused.json()["error"]["message"]
        (await ask(client, tool_choice="none")).raise_for_status()
        engine.max_request_tokens = 4096
        reply = (await ask(client, tool_choice="required", messages=HISTORY)).json()
    message = reply["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] == "get_weather" and message["content"] is None
    shown = engine.tokenizer.rendered[-1]
    assert shown["tools"] is None
    assert shown["messages"][0]["role"] == "system" and '"get_weather"' in shown["messages"][0]["content"]
    assert all("tool_calls" not in m and m["role"] != "tool" for m in shown["messages"])
    assert engine.seen[-1][1].structured_outputs is not None


OWN_WAY = {
    "fields": {
        "tool_calls": {
            "open_pattern": r"<f=(?P<name>\w+)>",
            "close": "</f>",
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {},
    }
}


async def test_a_checkpoints_own_way_to_write_calls(engine: SpokenEngine) -> None:
    """Followed where the model chooses. Forced calls are read as the form has them written."""
    engine.tokenizer = TemplateTokenizer("{{ tools }}")
    engine.tokenizer.response_template = OWN_WAY
    async with client_of(engine) as client:
        for choice, says in (("auto", "<f=now>{}</f>"), ("required", '{"name": "now", "arguments": {}}')):
            engine.says = [says]
            message = (await ask(client, tool_choice=choice)).json()["choices"][0]["message"]
            assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}, choice
    form = engine.seen[-1][1].structured_outputs.structural_tag["format"]  # type: ignore[union-attr,index]
    assert form["tags"][1]["begin"].startswith('{"name": "now"')


class WithoutSystem(TemplateTokenizer):
    """As Gemma 2's."""

    def encode_chat(self, messages, **options):  # type: ignore[no-untyped-def]
        if messages[0]["role"] == "system":
            raise RequestError("System role not supported", code=ErrorCode.TEMPLATE_FAILED, param="messages")
        return super().encode_chat(messages, **options)


async def test_a_template_without_tools_and_system(engine: SpokenEngine) -> None:
    engine.tokenizer = WithoutSystem("{{ messages }}")
    engine.says = ['{"name": "now", "arguments": {}}']
    engine.max_request_tokens = 4096
    async with client_of(engine) as client:
        (await ask(client, tool_choice="required")).raise_for_status()
        refused = await ask(
            client, tool_choice="required", messages=[{"role": "system", "content": "Be kind."}, *HELLO]
        )
    assert refused.status_code == 400
    (shown,) = engine.tokenizer.rendered[-1]["messages"]
    assert shown["role"] == "user" and shown["content"].endswith("\n\nweather?")
    assert '"get_weather"' in shown["content"]


async def test_named_parser(engine: SpokenEngine) -> None:
    engine.config = fake_config(tool_call_parser="pythonic")
    engine.says = ["[now()]"]
    async with client_of(engine) as client:
        message = (await ask(client)).json()["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] == "now"


async def test_tokenize_counts_tools(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    body = {"messages": HELLO, "tools": TOOLS}
    (await client.post("/tokenize", json=body)).raise_for_status()
    assert engine.tokenizer.rendered[-1]["tools"] is not None
    refused = await client.post("/tokenize", json={**body, "tools": [{"type": "function"}]})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tools[0].function"


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": function}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tools": 5}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": 5}]}, "tools[0].function"),
    ({"tools": [tool()]}, "tools[0].function.name"),
    ({"tools": [tool(name="a b")]}, "tools[0].function.name"),
    ({"tools": [tool(name='x"y\n')]}, "tools[0].function.name"),
    ({"tools": [tool(name="x" * 129)]}, "tools[0].function.name"),
    ({"tools": [tool(name="a", description=5)]}, "tools[0].function.description"),
    ({"tools": [tool(name="a", strict="yes")]}, "tools[0].function.strict"),
    ({"tools": [tool(name="a", parameters=[])]}, "tools[0].function.parameters"),
    ({"tools": [tool(name="a", parameters={"type": "array"})]}, "tools[0].function.parameters"),
    ({"tools": [tool(name="a", parameters={"properties": []})]}, "tools[0].function.parameters.properties"),
    (
        {"tools": [tool(name="a", parameters={"properties": {"b": 5}})]},
        "tools[0].function.parameters.properties",
    ),
    ({"tools": [tool(name="a", parameters={"required": "b"})]}, "tools[0].function.parameters.required"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [tool(name=f"f{i}") for i in range(2000)]}, "tools"),
    ({"tools": [tool(name="a", description="x" * 100_000)]}, "tools"),
    ({"tool_choice": "must"}, "tool_choice"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function.name"),
    ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice.function.name"),
    ({"tool_choice": {"type": "custom"}}, "tool_choice"),
    ({"tool_choice": "required", "tools": []}, "tool_choice"),
    ({"tool_choice": "required", "tools": None}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.allowed_tools.tools"),
    (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "x", "tools": [NOW]}}},
        "tool_choice.allowed_tools.mode",
    ),
    (
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"name": "x"}]},
            }
        },
        "tool_choice.allowed_tools.tools[0].function.name",
    ),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"tools": None, "functions": [{"name": "f"}], "function_call": "must"}, "function_call"),
    ({"tools": None, "functions": [{"name": ""}]}, "functions[0].name"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
]


@pytest.mark.parametrize(
    ("body", "param"), BAD, ids=[f"{number}-{param}" for number, (_, param) in enumerate(BAD)]
)
async def test_refusals(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    reply = await ask(client, **body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param, reply.text


async def test_a_plain_request_stays_plain(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    """Without tools nothing is read out of the answer."""
    reply = await client.post("/v1/chat/completions", json={"messages": HELLO})
    assert reply.json()["choices"][0]["message"] == {"role": "assistant", "content": CALL, "refusal": None}
    assert engine.tokenizer.chat_template == QWEN
