"""A real model calls tools: forced and by itself, streamed and not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from server_process import serving

from octavo.base.errors import OctavoError
from octavo.weights.sources.find import find_model

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "qwen2.5-coder-0.5b-instruct"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
UNIT = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "get_weather", "description": "The weather in a city.", "parameters": UNIT},
    },
    {
        "type": "function",
        "function": {"name": "get_time", "description": "The current time in a city.", "parameters": CITY},
    },
]
PARIS: Any = [{"role": "user", "content": "What is the weather in Paris right now? Use the tool."}]
BOTH: Any = [{"role": "user", "content": "I need the weather in Rome and the time in Oslo."}]
NAMED: Any = {"type": "function", "function": {"name": "get_time"}}


def test_a_model_that_knows_no_tools(default_model_path: Path, tmp_path: Path) -> None:
    """Its template cannot show tools: forced calls work all the same."""
    with serving(default_model_path, "--max-model-len", "1024", log=tmp_path / "log") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300)
        with client:
            ((name, arguments),) = calls(client, PARIS, stream=True, tool_choice=NAMED)
            with pytest.raises(openai.BadRequestError, match="cannot show tools"):
                calls(client, PARIS, stream=False)
    assert name == "get_time" and arguments.keys() == {"city"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    try:
        path = find_model(MODEL, offline=True)
    except OctavoError as error:
        pytest.skip(f"not fetched (octavo pull {MODEL}): {error}")
    log = tmp_path_factory.mktemp("tools") / "log"
    with (
        serving(path, "--max-model-len", "1024", log=log) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300) as client,
    ):
        yield client


def calls(api: openai.OpenAI, messages: Any, *, stream: bool, **options: Any) -> list[tuple[str, Any]]:
    """(name, arguments) of each call; the reason to finish is checked."""
    body = {
        "model": api.models.list().data[0].id,
        "messages": messages,
        "tools": TOOLS,
        "temperature": 0,
        "max_tokens": 120,
        **options,
    }
    if not stream:
        choice = api.chat.completions.create(**body).choices[0]
        assert choice.finish_reason == "tool_calls", choice
        made = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        return [(name, json.loads(arguments)) for name, arguments in made]
    pieces: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    reason = None
    for chunk in api.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                names.setdefault(call.index, call.function.name)
                pieces.setdefault(call.index, []).append(call.function.arguments or "")
    assert reason == "tool_calls"
    return [(name, json.loads("".join(pieces[index]))) for index, name in names.items()]


@pytest.mark.parametrize("stream", [False, True])
def test_by_itself(api: openai.OpenAI, stream: bool) -> None:
    ((name, arguments),) = calls(api, PARIS, stream=stream)
    assert name == "get_weather" and arguments["city"] == "Paris"


@pytest.mark.parametrize("stream", [False, True])
def test_required(api: openai.OpenAI, stream: bool) -> None:
    made = calls(api, BOTH, stream=stream, tool_choice="required")
    assert [name for name, _ in made] == ["get_weather", "get_time"]
    assert made[0][1]["city"] == "Rome" and made[0][1]["unit"] in ("celsius", "fahrenheit")
    assert made[1][1] == {"city": "Oslo"}


@pytest.mark.parametrize("stream", [False, True])
def test_named(api: openai.OpenAI, stream: bool) -> None:
    """Even where the model would say something else."""
    hello: Any = [{"role": "user", "content": "Say hello."}]
    ((name, arguments),) = calls(api, hello, stream=stream, tool_choice=NAMED)
    assert name == "get_time" and isinstance(arguments["city"], str)


def test_one_at_most(api: openai.OpenAI) -> None:
    made = calls(api, BOTH, stream=False, tool_choice="required", parallel_tool_calls=False)
    assert len(made) == 1


def test_the_result_is_told(api: openai.OpenAI) -> None:
    messages = [
        *PARIS,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature": 31, "sky": "clear"}'},
    ]
    reply = api.chat.completions.create(
        model=api.models.list().data[0].id,
        messages=messages,
        tools=TOOLS,
        tool_choice="none",
        temperature=0,
        max_tokens=60,
    )
    assert reply.choices[0].message.tool_calls is None
    assert "31" in (reply.choices[0].message.content or "")


def test_a_schema_that_cannot_be_kept_is_named(api: openai.OpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}},
        },
    }
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(
            model=api.models.list().data[0].id, messages=PARIS, tools=[tool], tool_choice="required"
        )
    assert (caught.value.param or "").startswith("tools[0].function.parameters")
