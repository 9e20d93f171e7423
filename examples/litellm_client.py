"""LiteLLM (pip install litellm): python examples/litellm_client.py [URL]"""

import json
import sys

import httpx
import litellm

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
messages = [{"role": "user", "content": "What is the weather in Lisbon?"}]

# As a server of the OpenAI API, and as vLLM: LiteLLM has a name for each.
for provider in ("openai", "hosted_vllm"):
    stream = litellm.completion(
        model=f"{provider}/{model}",
        api_base=f"{url}/v1",
        api_key="none",
        messages=messages,
        max_tokens=32,
        temperature=0,
        stream=True,
    )
    print("".join(chunk.choices[0].delta.content or "" for chunk in stream))

tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
answer = litellm.completion(
    model=f"hosted_vllm/{model}",
    api_base=f"{url}/v1",
    api_key="none",
    messages=messages,
    tools=tools,
    tool_choice="required",
    max_tokens=128,
    temperature=0,
)
call = answer.choices[0].message.tool_calls[0]
print(call.function.name, json.loads(call.function.arguments))

# Anthropic's protocol through the same library.
answer = litellm.completion(
    model=f"anthropic/{model}", api_base=url, api_key="none", messages=messages, max_tokens=32, temperature=0
)
print(answer.choices[0].message.content)
