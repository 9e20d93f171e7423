"""The official client with tools and reasoning, against a real port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from server_fakes import fake_config
from server_live import LiveServer
from spoken_engine import THINKING, SpokenEngine, TemplateTokenizer
from test_tool_routes import CALL, TOOLS, TWO, Desk

HELLO: Any = [{"role": "user", "content": "weather?"}]
TOOL_LIST: Any = TOOLS


@pytest.fixture
def engine() -> SpokenEngine:
    engine = SpokenEngine(fake_config(), tokenizer=TemplateTokenizer(THINKING), says=[CALL])
    engine.grammars = Desk()  # type: ignore[assignment]
    return engine


@pytest.fixture
def api(live: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_round(api: openai.OpenAI, engine: SpokenEngine) -> None:
    """Ask, call, tell the result, as applications do."""
    messages = list(HELLO)
    reply = api.chat.completions.create(model="fake", messages=messages, tools=TOOL_LIST)
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and json.loads(call.function.arguments) == {"city": "Paris"}
    messages.append(choice.message)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    engine.says = ["It is sunny."]
    reply = api.chat.completions.create(model="fake", messages=messages, tools=TOOL_LIST)
    assert reply.choices[0].message.content == "It is sunny."
    assert reply.choices[0].message.tool_calls is None


def test_streamed_with_the_helper(api: openai.OpenAI, engine: SpokenEngine) -> None:
    engine.says = ["<think>Hm.</think>" + TWO]
    with api.chat.completions.stream(model="fake", messages=HELLO, tools=TOOL_LIST) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == "I look." and message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["get_weather", "now"]
    assert message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    assert message.reasoning_content == "Hm."  # type: ignore[attr-defined]
    assert "tool_calls.function.arguments.delta" in kinds


def test_n_streams_of_calls(api: openai.OpenAI, engine: SpokenEngine) -> None:
    engine.says = [TWO, "No.", CALL]
    names: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for chunk in api.chat.completions.create(model="fake", messages=HELLO, tools=TOOL_LIST, n=3, stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                if call.function is not None and call.function.name:
                    names[choice.index].append(call.function.name)
    assert names == {0: ["get_weather", "now"], 1: [], 2: ["get_weather"]}


def test_pydantic_tools(api: openai.OpenAI, engine: SpokenEngine) -> None:
    class GetWeather(BaseModel):
        """The weather."""

        city: str

    engine.says = ['<tool_call>{"name": "GetWeather", "arguments": {"city": "Rome"}}</tool_call>']
    reply = api.chat.completions.parse(
        model="fake",
        messages=HELLO,
        tools=[openai.pydantic_function_tool(GetWeather)],
        tool_choice="required",
    )
    assert reply.choices[0].message.tool_calls is not None
    parsed = reply.choices[0].message.tool_calls[0].function.parsed_arguments
    assert isinstance(parsed, GetWeather) and parsed.city == "Rome"
    assert engine.seen[-1][1].structured_outputs is not None


def test_a_wrong_choice(api: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "nope"}}
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(model="fake", messages=HELLO, tools=TOOL_LIST, tool_choice=choice)
    assert caught.value.param == "tool_choice.function.name"
