"""Let the model call a function, then answer with its result: python examples/openai_tools.py [URL]

Tools need a model whose chat template shows them; the default one's does not:
octavo serve qwen2.5-coder-0.5b-instruct
"""

import json
import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{url}/v1", api_key="none")
model = client.models.list().data[0].id


def get_weather(city: str) -> str:
    return json.dumps({"city": city, "degrees": 21, "sky": "clear"})


tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city, now.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
]
messages = [{"role": "user", "content": "What is the weather in Lisbon?"}]
answer = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="required", max_tokens=128, temperature=0
)
message = answer.choices[0].message
assert message.tool_calls, message
messages.append(message)
for call in message.tool_calls:
    arguments = json.loads(call.function.arguments)
    print(f"{call.function.name}({arguments})")
    messages.append({"role": "tool", "tool_call_id": call.id, "content": get_weather(**arguments)})
answer = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="none", max_tokens=64, temperature=0
)
print(answer.choices[0].message.content)
