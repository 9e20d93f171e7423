"""A real model that knows tools, behind the ollama client: it reads calls, results and lists of tools."""

from __future__ import annotations

from pathlib import Path

import ollama
import pytest

from octavo.base.errors import OctavoError
from octavo.weights.sources.find import find_model
from tests.end_to_end.server_process import serving

pytestmark = [pytest.mark.real, pytest.mark.slow]

NAME = "qwen2.5-coder-0.5b-instruct"
OPTIONS = {"temperature": 0, "num_predict": 30}


def get_weather(city: str) -> str:
    """Get the current weather of a city.

    Args:
      city: The name of the city.
    """
    return f"Sunny, 21 degrees in {city}"


def test_results_of_calls_are_used(tmp_path: Path) -> None:
    try:
        path = find_model(NAME, offline=True)
    except OctavoError as error:
        pytest.skip(f"not fetched (octavo pull {NAME}): {error}")
    flags = ("--max-model-len", "1024", "--num-gpu-blocks-override", "200", "--served-model-name", "coder")
    with serving(path, *flags, log=tmp_path / "log") as server:
        api = ollama.Client(server.url)
        assert "tools" in (api.show("coder").capabilities or [])
        # So small a model writes its calls without the marks it was taught, as plain JSON: the call is given
        # to it here. tests/server/test_ollama_client.py reads calls as larger models write them.
        call = ollama.Message.ToolCall.Function(name="get_weather", arguments={"city": "Paris"})
        messages = [
            ollama.Message(role="user", content="What is the temperature in Paris?"),
            ollama.Message(role="assistant", tool_calls=[ollama.Message.ToolCall(function=call)]),
            ollama.Message(role="tool", tool_name="get_weather", content=get_weather("Paris")),
        ]
        answer = api.chat("coder", messages, options=OPTIONS)
        # What so small a model makes of the result is its own affair; it has read it.
        assert answer.message.content and (answer.prompt_eval_count or 0) > 40
        streamed = api.chat("coder", messages, options=OPTIONS, stream=True)
        assert "".join(part.message.content or "" for part in streamed) == answer.message.content
        shown = api.chat("coder", messages[:1], tools=[get_weather], options=OPTIONS)
        assert "get_weather" in (shown.message.content or "") or shown.message.tool_calls
