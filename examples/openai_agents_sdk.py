"""OpenAI Agents SDK (pip install openai-agents): python examples/openai_agents_sdk.py [URL]

Tools need a model whose chat template shows them; the default one's does not:
octavo serve qwen2.5-coder-0.5b-instruct
"""

import asyncio
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)
called: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """Weather of a city, now."""
    called.append(city)
    return f"21 degrees and clear in {city}"


async def main(url: str) -> None:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    name = (await client.models.list()).data[0].id
    # The SDK speaks both APIs. The tool is required once; then the SDK lets the model choose.
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        agent = Agent(
            name="Forecaster",
            instructions="You answer questions about the weather in one sentence.",
            model=kind(model=name, openai_client=client),
            model_settings=ModelSettings(temperature=0, max_tokens=128, tool_choice="required"),
            tools=[get_weather],
        )
        called.clear()
        result = await Runner.run(agent, "What is the weather in Lisbon?", max_turns=8)
        assert called, result
        print(f"{kind.__name__}: get_weather({called[0]}) -> {result.final_output}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
