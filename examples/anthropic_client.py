"""Talk to a running server through Anthropic's client: python examples/anthropic_client.py [URL]"""

import sys

from anthropic import Anthropic

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = Anthropic(base_url=url, api_key="none")
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Name three rivers."}]
print(client.messages.count_tokens(model=model, messages=messages).input_tokens, "tokens in")
with client.messages.stream(model=model, max_tokens=48, messages=messages) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    print(f"\n({stream.get_final_message().usage.output_tokens} tokens)")
tools = [
    {
        "name": "get_weather",
        "description": "Weather of a city, now.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
answer = client.messages.create(
    model=model,
    max_tokens=128,
    messages=[{"role": "user", "content": "What is the weather in Lisbon?"}],
    tools=tools,
    tool_choice={"type": "tool", "name": "get_weather"},
)
calls = [block for block in answer.content if block.type == "tool_use"]
assert calls and answer.stop_reason == "tool_use", answer
print(calls[0].name, calls[0].input)
