"""Forms over HTTP with the real default model, and bombs beside a running stream."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from tests.end_to_end.server_process import ServerProcess, serving

pytestmark = pytest.mark.real

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["en", "fr", "de"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "languages"],
    "additionalProperties": False,
}
MESSAGES: Any = [{"role": "user", "content": "Describe a person called Ada as JSON."}]
BOMBS: list[dict[str, Any]] = [
    {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnop"]},
    {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(10_000)}},
    {"type": "integer", "multipleOf": 9_999_991},
    {"enum": [f"value {i}" for i in range(200_000)]},
]


@pytest.fixture(scope="module")
def server(default_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(default_model_path, "--max-model-len", "1024", "--max-num-seqs", "8", log=log) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def test_json_schema_of_the_official_client(client: openai.OpenAI, model: str) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, response_format=form, n=2, max_tokens=200, seed=1, logprobs=True
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), PERSON)
        assert choice.logprobs is not None and choice.logprobs.content
    parts = client.chat.completions.create(
        model=model, messages=MESSAGES, response_format=form, max_tokens=200, temperature=0, stream=True
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    jsonschema.validate(json.loads(text), PERSON)


def test_choice_and_regex(client: openai.OpenAI, model: str) -> None:
    for form, fits in (
        ({"choice": ["positive", "negative"]}, {"positive", "negative"}),
        ({"regex": "(yes|no)!"}, {"yes!", "no!"}),
    ):
        answer = client.completions.create(
            model=model, prompt="Is it good?", max_tokens=20, extra_body={"structured_outputs": form}
        )
        assert answer.choices[0].text in fits


def test_bombs_are_refused_while_a_stream_goes_on(client: openai.OpenAI, model: str) -> None:
    client.completions.create(
        model=model, prompt="x", max_tokens=2, extra_body={"guided_json": {"type": "boolean"}}
    )
    is_quiet = os.getloadavg()[0] < (os.cpu_count() or 1)
    arrivals: list[float] = []
    done = threading.Event()

    def read() -> None:
        stream = client.completions.create(
            model=model,
            prompt="Once",
            max_tokens=900,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for _ in stream:
            arrivals.append(time.monotonic())
            if done.is_set():
                stream.close()
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for bomb in BOMBS:
            began = time.monotonic()
            with pytest.raises(openai.BadRequestError) as caught:
                client.completions.create(
                    model=model, prompt="x", max_tokens=4, extra_body={"structured_outputs": {"json": bomb}}
                )
            assert time.monotonic() - began < (2.0 if is_quiet else 20.0)
            assert str(caught.value.param).startswith("structured_outputs.json")
    finally:
        done.set()
        reader.join(60)
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert len(arrivals) > 10 and max(gaps) < (0.5 if is_quiet else 10.0)
