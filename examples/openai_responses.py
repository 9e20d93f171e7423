"""The Responses API, with the conversation kept by the server: python examples/openai_responses.py [URL]"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{url}/v1", api_key="none")
model = client.models.list().data[0].id

first = client.responses.create(
    model=model, input="My name is Ada. Say hello.", max_output_tokens=32, temperature=0
)
print(first.output_text)
kinds = []
stream = client.responses.create(
    model=model,
    input="What is my name?",
    previous_response_id=first.id,
    max_output_tokens=32,
    temperature=0,
    stream=True,
)
for event in stream:
    kinds.append(event.type)
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
print()
assert kinds[0] == "response.created", kinds
assert kinds[-1] in ("response.completed", "response.incomplete"), kinds
print(client.responses.retrieve(first.id).status)
client.responses.delete(first.id)
