"""LangChain (pip install langchain-openai): python examples/langchain_client.py [URL]

Tools need a model whose chat template shows them; the default one's does not:
octavo serve qwen2.5-coder-0.5b-instruct
"""

import sys

import httpx
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
chat = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_tokens=128)

print("".join(chunk.text for chunk in chat.stream("Name three rivers.")))


class River(BaseModel):
    """A river."""

    name: str
    length_km: int = Field(ge=1, le=7000)


river = chat.with_structured_output(River).invoke("Describe the Danube.")
assert isinstance(river, River), river
print(river)


@tool
def get_weather(city: str) -> str:
    """Weather of a city, now."""
    return f"21 degrees in {city}"


messages = [HumanMessage("What is the weather in Lisbon?")]
answer = chat.bind_tools([get_weather], tool_choice="required").invoke(messages)
assert answer.tool_calls, answer
messages.append(answer)
for call in answer.tool_calls:
    print(call["name"], call["args"])
    messages.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
print(chat.invoke(messages).text)
