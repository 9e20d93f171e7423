"""Answers that follow a schema: python examples/openai_structured.py [URL]"""

import sys

from openai import OpenAI
from pydantic import BaseModel, Field

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{url}/v1", api_key="none")
model = client.models.list().data[0].id


class River(BaseModel):
    name: str
    country: str
    length_km: int = Field(ge=1, le=7000)


answer = client.chat.completions.parse(
    model=model,
    messages=[{"role": "user", "content": "Describe the Danube as JSON."}],
    response_format=River,
    max_tokens=128,
    temperature=0,
)
river = answer.choices[0].message.parsed
assert isinstance(river, River), answer
print(river)

# vLLM's field knows more kinds of form: json, regex, choice, grammar, structural_tag.
answer = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Is the Danube longer than the Rhine?"}],
    max_tokens=8,
    temperature=0,
    extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
)
assert answer.choices[0].message.content in ("yes", "no"), answer
print(answer.choices[0].message.content)
