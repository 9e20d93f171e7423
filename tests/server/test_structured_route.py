"""What bodies say of the form of an answer reaches the engine compiled, or is a 400 in their own words."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine

SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
WRONG = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)"}}}
MESSAGES = [{"role": "user", "content": "hi"}]
TAG = {"type": "tag", "begin": "<", "content": {"type": "json_schema", "json_schema": SCHEMA}, "end": ">"}


async def chat(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 3, **body})


async def complete(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 3, **body})


@pytest.fixture(params=[chat, complete], ids=["chat", "completions"])
def ask(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
async def _helpers_end(engine: FakeEngine) -> Any:
    yield
    await engine.grammars.close()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"response_format": {"type": "json_object"}}, '"type": "object"'),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, '"properties": {"x"'),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": SCHEMA},
                }
            },
            '"properties": {"x"',
        ),
        ({"response_format": {"type": "structural_tag", "format": TAG}}, '"properties": {"x"'),
        (
            {
                "response_format": {
                    "type": "structural_tag",
                    "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
                    "triggers": ["<f"],
                }
            },
            '"properties": {"x"',
        ),
        ({"structured_outputs": {"json": SCHEMA}}, '"properties": {"x"'),
        (
            {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
            "whitespace_flexible",
        ),
        ({"structured_outputs": {"regex": "[ab]+"}}, "[ab]+"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "CHOICE"),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, "start"),
        ({"structured_outputs": {"structural_tag": {"format": TAG}}}, '"properties": {"x"'),
        ({"guided_json": SCHEMA, "guided_whitespace_pattern": "_"}, '"whitespace_pattern": "_"'),
        ({"guided_regex": "[ab]+"}, "[ab]+"),
        ({"guided_choice": ["yes"]}, "CHOICE"),
        ({"guided_grammar": 'start: "a"', "guided_decoding_backend": "auto"}, "start"),
    ],
)
async def test_forms_reach_the_engine_compiled(
    ask: Any, client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], part: str
) -> None:
    response = await ask(client, **body)
    assert response.status_code == 200, response.text
    form = engine.seen[0][1].structured_outputs
    assert form is not None and form.canonical is not None and part in form.canonical
    assert form.json is None and form.regex is None


async def test_text_is_no_form(ask: Any, client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await ask(client, response_format={"type": "text"})).status_code == 200
    assert (await ask(client, response_format=None, structured_outputs=None)).status_code == 200
    assert [params.structured_outputs for _, params, _ in engine.seen] == [None, None]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": WRONG}}},
            "response_format.json_schema.schema.properties.x.pattern",
        ),
        (
            {"response_format": {"type": "json_object", "schema": WRONG}},
            "response_format.schema.properties.x.pattern",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": [1]}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "structural_tag"}}, "response_format"),
        (
            {"response_format": {"type": "structural_tag", "format": {"type": "magic"}}},
            "response_format.format.type",
        ),
        (
            {
                "response_format": {
                    "type": "structural_tag",
                    "structures": [{"begin": "<f>", "schema": WRONG, "end": ""}],
                    "triggers": ["<f"],
                }
            },
            "response_format.structures[0].schema.properties.x.pattern",
        ),
        ({"structured_outputs": {"json": WRONG}}, "structured_outputs.json.properties.x.pattern"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp"),
        ({"structured_outputs": {"canonical": "start: /a/"}}, "structured_outputs.canonical"),
        ({"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice[1]"),
        ({"guided_json": WRONG}, "guided_json.properties.x.pattern"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_grammar": "start: missing"}, "guided_grammar"),
        ({"guided_json": {}, "guided_whitespace_pattern": ""}, "guided_whitespace_pattern"),
        ({"guided_json": {}, "guided_decoding_backend": "outlines"}, "guided_decoding_backend"),
        ({"guided_json": {}, "response_format": {"type": "json_object"}}, "guided_json"),
        ({"guided_json": {}, "ignore_eos": True}, "ignore_eos"),
        ({"guided_json": {}, "min_tokens": 2}, "min_tokens"),
    ],
)
async def test_refusals_speak_of_the_callers_field(
    ask: Any, client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str, stream: bool
) -> None:
    response = await ask(client, stream=stream, **body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == param
    assert (
        "structured_outputs" not in error["message"]
        or "structured_outputs" in str(body)
        or "contradicts" in str(error)
    )
    assert engine.seen == []
    assert (await ask(client)).status_code == 200
