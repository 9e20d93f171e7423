"""The Responses API with real models, through a server process: the same words as chat, and a memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from octavo.base.errors import OctavoError
from octavo.weights.sources.find import find_model
from tests.end_to_end.server_process import serving

pytestmark = pytest.mark.real

QUESTION = "What is the capital of France?"
GREEDY: dict[str, Any] = {"model": "real", "temperature": 0, "max_output_tokens": 24}


class City(pydantic.BaseModel):
    name: str
    country: str


def test_a_conversation_that_survives_a_restart(default_model_path: Path, tmp_path: Path) -> None:
    options = (
        "--dtype", "float32", "--max-model-len", "1024", "--num-gpu-blocks-override", "200",
        "--served-model-name", "real",
        "--response-store", str(tmp_path / "responses.db"),
    )  # fmt: skip
    with serving(default_model_path, *options, log=tmp_path / "log") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        first = client.responses.create(input=QUESTION, **GREEDY)
        chat = client.chat.completions.create(
            model="real",
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_completion_tokens=24,
        )
        assert first.output_text == chat.choices[0].message.content and "Paris" in first.output_text
        assert first.usage is not None and chat.usage is not None
        assert first.usage.total_tokens == chat.usage.total_tokens
        assert _streamed(client) == first.output_text
        check_log_probabilities(client)
        check_background(client, first.output_text)
        parsed = client.responses.parse(
            model="real", input="Paris is in France.", text_format=City, max_output_tokens=100, temperature=0
        )
        assert isinstance(parsed.output_parsed, City)
        assert server.stop() == 0
    with serving(default_model_path, *options, log=tmp_path / "log2") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        assert client.responses.retrieve(first.id) == first
        second = client.responses.create(
            input="And of Italy?", previous_response_id=first.id, instructions="Answer briefly.", **GREEDY
        )
        spelled_out = client.chat.completions.create(
            model="real",
            messages=[
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": first.output_text},
                {"role": "user", "content": "And of Italy?"},
            ],
            temperature=0,
            max_completion_tokens=24,
        )
        assert second.output_text == spelled_out.choices[0].message.content


def _streamed(client: openai.OpenAI) -> str:
    text = ""
    for event in client.responses.create(input=QUESTION, stream=True, **GREEDY):
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.output_text == text
    return text


def check_log_probabilities(client: openai.OpenAI) -> None:
    asked = client.responses.create(
        input=QUESTION, include=["message.output_text.logprobs"], top_logprobs=2, **GREEDY
    )
    message = asked.output[0]
    assert message.type == "message" and message.content[0].type == "output_text"
    part = message.content[0]
    assert part.logprobs and all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    assert bytes(byte for entry in part.logprobs for byte in entry.bytes).decode() == part.text


def check_background(client: openai.OpenAI, expected: str) -> None:
    begun = client.responses.create(input=QUESTION, background=True, **GREEDY)
    events = list(client.responses.retrieve(begun.id, stream=True))
    assert events[1].type == "response.queued"
    assert client.responses.retrieve(begun.id).output_text == expected


QUESTION_FOR_TOOLS = "What is the weather in Rome right now?"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.mark.slow
def test_a_tool_is_called_and_its_result_used(tmp_path: Path) -> None:
    name = "qwen2.5-coder-0.5b-instruct"
    try:
        path = find_model(name, offline=True)
    except OctavoError as error:
        pytest.skip(f"not fetched (octavo pull {name}): {error}")
    flags = ("--max-model-len", "1024", "--served-model-name", "coder")
    with serving(path, *flags, log=tmp_path / "log") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        body: Any = {"model": "coder", "temperature": 0, "max_output_tokens": 100, "tools": [WEATHER]}
        asked: Any = {
            "input": QUESTION_FOR_TOOLS,
            "tool_choice": {"type": "function", "name": "get_weather"},
        }
        first = client.responses.create(**asked, **body)
        with client.responses.stream(**asked, **body) as stream:
            streamed = stream.get_final_response()
        (call,) = first.output
        assert call.type == "function_call" and call.name == "get_weather"
        assert "Rome" in json.loads(call.arguments)["city"]
        assert streamed.output[0].arguments == call.arguments  # type: ignore[union-attr]
        result: Any = {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": "Sunny, 31 degrees.",
        }
        second = client.responses.create(input=[result], previous_response_id=first.id, **body)
        assert "Sunny" in str(client.responses.input_items.list(second.id).data[0])
        spelled_out = client.chat.completions.create(
            model="coder",
            temperature=0,
            max_completion_tokens=100,
            tools=[{"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}],
            messages=[
                {"role": "user", "content": QUESTION_FOR_TOOLS},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": call.call_id,
                            "type": "function",
                            "function": {"name": call.name, "arguments": call.arguments},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": call.call_id, "content": result["output"]},
            ],
        )
        assert spelled_out.usage is not None and second.usage is not None
        assert second.usage.input_tokens == spelled_out.usage.prompt_tokens
        assert second.output_text == (spelled_out.choices[0].message.content or "")
