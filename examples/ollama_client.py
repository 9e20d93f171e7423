"""Talk to a running server through Ollama's client: python examples/ollama_client.py [URL]

Tools need a model whose chat template shows them; the default one's does not:
octavo serve qwen2.5-coder-0.5b-instruct
"""

import sys

from ollama import Client

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = Client(host=url)
model = client.list().models[0].model
messages = [{"role": "user", "content": "Name three rivers."}]
for part in client.chat(model=model, messages=messages, stream=True, options={"num_predict": 48}):
    print(part.message.content or "", end="", flush=True)
    if part.done:
        print(f"\n({part.eval_count} tokens)")
answer = client.generate(model=model, prompt="The sea is", options={"num_predict": 16, "temperature": 0})
print(answer.response)


def get_weather(city: str) -> str:
    """Weather of a city, now.

    Args:
        city: its name
    """
    return f"21 degrees in {city}"


messages = [{"role": "user", "content": "What is the weather in Lisbon? Use the tool."}]
answer = client.chat(model=model, messages=messages, tools=[get_weather], options={"temperature": 0})
for call in answer.message.tool_calls or []:
    print(call.function.name, dict(call.function.arguments))
