"""`octavo serve` and the official anthropic client: a tiny model, and real ones with their templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from octavo.base.errors import OctavoError
from octavo.weights.sources.find import find_model
from tests.end_to_end.server_process import serving

OPTIONS = ("--max-model-len", "512", "--num-gpu-blocks-override", "65", "--served-model-name", "tiny")
GREEDY: Any = {"temperature": 0, "top_k": 1}
HELLO: Any = [{"role": "user", "content": "Hello!"}]
MARK: Any = {"type": "ephemeral", "ttl": "1h"}


def connect(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def client(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    with serving(tiny_llama, *OPTIONS, log=tmp_path_factory.mktemp("anthropic") / "log") as running:
        yield connect(running.url)


def test_a_stream_is_the_whole_message(client: anthropic.Anthropic) -> None:
    body: Any = {"model": "tiny", "max_tokens": 24, "messages": HELLO, "system": "Be brief."}
    client.messages.create(**body, extra_body=GREEDY)
    whole = client.messages.create(**body, extra_body=GREEDY)
    with client.messages.stream(**body, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert message.to_dict() | {"id": ""} == whole.to_dict() | {"id": ""}
    assert whole.content and text == whole.content[0].text  # type: ignore[union-attr]
    url = str(client.base_url).rstrip("/")
    chat = {
        "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
        "max_tokens": 24,
        **GREEDY,
    }
    other = httpx.post(f"{url}/v1/chat/completions", json=chat, timeout=60).json()
    assert other["choices"][0]["message"]["content"] == text
    count = client.messages.count_tokens(model="tiny", messages=HELLO, system="Be brief.").input_tokens
    assert count == other["usage"]["prompt_tokens"]


def cached_after_a_crowd(client: anthropic.Anthropic, name: str, **system: Any) -> int:
    """Ask, let prompts go by that fill the cache several times, and ask again."""

    def ask(text: str, **more: Any) -> int:
        message = client.messages.create(
            model="tiny",
            max_tokens=1,
            system=[{"type": "text", "text": (text * 40)[:400], **more}],
            messages=HELLO,
        )
        return message.usage.cache_read_input_tokens or 0

    assert ask(name, **system) == 0
    for number in range(10):
        ask(f"{number}: {name}")
    return ask(name, **system)


def test_a_pinned_prefix_survives_what_others_ask(client: anthropic.Anthropic) -> None:
    assert cached_after_a_crowd(client, "Nothing marked. ") == 0
    assert cached_after_a_crowd(client, "Marked for an hour. ", cache_control=MARK) >= 400


def test_a_wrong_body_hurts_nobody(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="'image'"):
        client.messages.create(
            model="tiny",
            max_tokens=1,
            messages=[{"role": "user", "content": [{"type": "image", "source": {}}]}],  # type: ignore[typeddict-item]
        )
    with pytest.raises(anthropic.BadRequestError, match="at most 512"):
        client.messages.create(model="tiny", max_tokens=1, messages=[{"role": "user", "content": "x" * 600}])
    assert client.messages.create(model="tiny", max_tokens=1, messages=HELLO).usage.output_tokens == 1


WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    name = "qwen2.5-coder-0.5b-instruct"
    try:
        path = find_model(name, offline=True)
    except OctavoError as error:
        pytest.skip(f"not fetched (octavo pull {name}): {error}")
    flags = ("--max-model-len", "1024", "--served-model-name", "coder")
    with serving(path, *flags, log=tmp_path_factory.mktemp("coder") / "log") as running:
        yield connect(running.url)


@pytest.mark.slow
@pytest.mark.real
def test_a_real_model_calls_a_tool_and_goes_on(coder: anthropic.Anthropic) -> None:
    question: Any = [{"role": "user", "content": "What is the weather in Rome right now?"}]
    body: Any = {"model": "coder", "max_tokens": 100, "tools": [WEATHER], "extra_body": GREEDY}
    forced: Any = {"type": "tool", "name": "get_weather"}
    whole = coder.messages.create(messages=question, tool_choice=forced, **body)
    with coder.messages.stream(messages=question, tool_choice=forced, **body) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == whole.stop_reason == "tool_use"
    (call,) = message.content
    assert call.type == "tool_use" and call.name == "get_weather"
    assert list(call.input) == ["city"] and "Rome" in str(call.input["city"])
    assert whole.content[0].input == call.input  # type: ignore[union-attr]
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 31 degrees."}
    answer = coder.messages.create(
        messages=[*question, message.to_param(), {"role": "user", "content": [result]}],
        tool_choice={"type": "none"},
        **body,
    )
    # What so small a model makes of the result is its own affair; it has read it.
    assert answer.content and answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 40


@pytest.mark.slow
@pytest.mark.real
def test_a_real_model_keeps_to_a_schema(coder: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
        "required": ["city", "population"],
        "additionalProperties": False,
    }
    message = coder.messages.create(
        model="coder",
        max_tokens=100,
        messages=[{"role": "user", "content": "Give the city of Paris and its population as JSON."}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
        extra_body=GREEDY,
    )
    value = json.loads(message.content[0].text)  # type: ignore[union-attr]
    assert isinstance(value["city"], str) and isinstance(value["population"], int)
