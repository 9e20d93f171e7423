"""Bad input to POST /v1/responses: what is sent -> code and parameter; and wishes that ask for nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from responses_replies import CALL, OUTPUT, PATH, respond, say
from server_fakes import FakeEngine
from server_replies import check_error

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "invalid_value", "input"),
    ({"input": 5}, "invalid_value", "input"),
    ({"input": {"role": "user"}}, "invalid_value", "input"),
    ({"input": []}, "invalid_value", "input"),
    ({"input": [say("user", "x")] * 5000}, "invalid_value", "input"),
    ({"input": ["x"]}, "invalid_value", "input[0]"),
    ({"input": [{}]}, "invalid_value", "input[0].id"),
    ({"input": [{"type": 5}]}, "unsupported_value", "input[0].type"),
    ({"input": [{"type": "web_search_call"}]}, "unsupported_value", "input[0].type"),
    ({"input": [{"type": "x" * 10_000}]}, "unsupported_value", "input[0].type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "invalid_value", "input[0].role"),
    ({"input": [{"role": "user"}]}, "invalid_value", "input[0].content"),
    ({"input": [{"role": "user", "content": 5}]}, "invalid_value", "input[0].content"),
    ({"input": [{"role": "user", "content": ["x"]}]}, "invalid_value", "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "unsupported_value",
        "input[0].content[0].type",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "invalid_value",
        "input[0].content[0].text",
    ),
    ({"input": [{"role": "user", "content": "x", "id": "y" * 65}]}, "invalid_value", "input[0].id"),
    ({"input": [{"role": "user", "content": "x", "id": 5}]}, "invalid_value", "input[0].id"),
    (
        {"input": [{**say("user", "x"), "id": "a"}, {**say("user", "y"), "id": "a"}]},
        "invalid_value",
        "input[1].id",
    ),
    ({"input": [{**CALL, "call_id": ""}]}, "invalid_value", "input[0].call_id"),
    ({"input": [{**CALL, "name": None}]}, "invalid_value", "input[0].name"),
    ({"input": [{**CALL, "arguments": "{"}]}, "invalid_value", "input[0].arguments"),
    ({"input": [{**CALL, "arguments": "[1]"}]}, "invalid_value", "input[0].arguments"),
    ({"input": [{**CALL, "arguments": {"x": 1}}]}, "invalid_value", "input[0].arguments"),
    ({"input": [{**CALL, "arguments": "[" * 50_000}]}, "invalid_value", "input[0].arguments"),
    ({"input": [OUTPUT]}, "invalid_value", "input"),
    ({"input": [CALL, {**OUTPUT, "output": 5}]}, "invalid_value", "input[1].output"),
    (
        {"input": [CALL, {**OUTPUT, "output": [{"type": "input_file"}]}]},
        "unsupported_value",
        "input[1].output[0].type",
    ),
    (
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
        "unsupported_value",
        "input[0].encrypted_content",
    ),
    ({"input": [{"type": "reasoning", "summary": 5}]}, "invalid_value", "input[0].summary"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "not_found", "input[0].id"),
    ({"input": [{"id": "msg_" + "a" * 32 + "o0"}]}, "not_found", "input[0].id"),
    ({"previous_response_id": "resp_1"}, "not_found", "previous_response_id"),
    ({"previous_response_id": 5}, "invalid_value", "previous_response_id"),
    ({"conversation": "conv_1"}, "unsupported_value", "conversation"),
    ({"prompt": {"id": "p"}}, "unsupported_value", "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "unsupported_value", "context_management"),
    ({"model": "other"}, "model_not_found", "model"),
    ({"n": 2}, "invalid_value", "n"),
    ({"max_tokens": 5}, "unsupported_value", "max_tokens"),
    ({"max_completion_tokens": 5}, "unsupported_value", "max_completion_tokens"),
    ({"messages": []}, "unsupported_value", "messages"),
    ({"response_format": {"type": "text"}}, "unsupported_value", "response_format"),
    ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
    ({"max_output_tokens": 1000}, "context_length_exceeded", "max_output_tokens"),
    ({"max_output_tokens": "5"}, "invalid_value", "max_output_tokens"),
    ({"max_tool_calls": 0}, "invalid_value", "max_tool_calls"),
    ({"temperature": -1}, "invalid_value", "temperature"),
    ({"top_logprobs": 1000}, "invalid_value", "top_logprobs"),
    ({"include": ["everything"]}, "invalid_value", "include[0]"),
    ({"metadata": {str(k): "x" for k in range(17)}}, "invalid_value", "metadata"),
    ({"metadata": {"k" * 65: "x"}}, "invalid_value", "metadata"),
    ({"metadata": {"k": "x" * 513}}, "invalid_value", "metadata"),
    ({"metadata": {"k": 5}}, "invalid_value", "metadata.k"),
    ({"user": "x" * 1025}, "invalid_value", "user"),
    ({"truncation": "middle"}, "invalid_value", "truncation"),
    ({"service_tier": "gold"}, "invalid_value", "service_tier"),
    ({"reasoning": {"summary": "concise"}}, "unsupported_value", "reasoning.summary"),
    ({"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
    ({"reasoning": {"context": "all_turns"}}, "unsupported_value", "reasoning.context"),
    ({"reasoning": {"mode": "pro"}}, "unsupported_value", "reasoning.mode"),
    ({"text": {"format": {"type": "yaml"}}}, "invalid_value", "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "invalid_value", "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "invalid_value", "text.format.name"),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": 5}}},
        "invalid_value",
        "text.format.schema",
    ),
    ({"tools": [{"type": "web_search"}]}, "unsupported_value", "tools[0].type"),
    ({"tools": [{"name": "f"}]}, "unsupported_value", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "invalid_value", "tools[0].name"),
    ({"tools": ["f"]}, "invalid_value", "tools[0]"),
    ({"tools": [TOOL, TOOL]}, "invalid_value", "tools"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "invalid_value", "tools[0].name"),
    ({"tools": [{**TOOL, "parameters": 5}]}, "invalid_value", "tools[0].parameters"),
    ({"tools": [{**TOOL, "strict": 1}]}, "invalid_value", "tools[0].strict"),
    ({"functions": []}, "unsupported_value", "functions"),
    ({"use_beam_search": True}, "unsupported_value", "use_beam_search"),
    ({"thinking_token_budget": -1}, "invalid_value", "thinking_token_budget"),
    ({"tool_choice": "sometimes"}, "invalid_value", "tool_choice"),
    ({"tool_choice": 5}, "invalid_value", "tool_choice"),
    ({"tool_choice": {"type": "web_search"}, "tools": [TOOL]}, "invalid_value", "tool_choice"),
    (
        {"tool_choice": {"type": "function", "name": "g"}, "tools": [TOOL]},
        "invalid_value",
        "tool_choice.name",
    ),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "none", "tools": [TOOL]}, "tools": [TOOL]},
        "invalid_value",
        "tool_choice.mode",
    ),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}, "tools": [TOOL]},
        "invalid_value",
        "tool_choice.tools",
    ),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [5]}, "tools": [TOOL]},
        "invalid_value",
        "tool_choice.tools[0].name",
    ),
    ({"stream_options": {"include_obfuscation": False}}, "invalid_value", "stream_options"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "unsupported_value",
        "stream_options.include_obfuscation",
    ),
    ({"background": True, "store": False}, "invalid_value", "background"),
    ({"chat_template": "x"}, "unsupported_value", "chat_template"),
    ({"priority": 1}, "unsupported_value", "priority"),
]


@pytest.mark.parametrize(("body", "code", "param"), BAD)
async def test_bad_input(
    body: dict[str, Any], code: str, param: str, client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    status = 404 if code in ("not_found", "model_not_found") else 400
    check_error(await client.post(PATH, json={"input": "x", **body}), status, code, param)
    assert engine.num_started == 0
    assert (await respond(client))["status"] == "incomplete", "the next one is served"


@pytest.mark.parametrize(
    "body",
    [
        {"include": ["reasoning.encrypted_content", "file_search_call.results"]},
        {"prompt_cache_options": {"mode": "implicit"}},
        {"stream_options": None, "conversation": None, "prompt": None, "tools": None, "text": None},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"reasoning": {"context": "auto", "mode": "standard", "generate_summary": "detailed"}},
        {"service_tier": "flex", "prompt_cache_retention": "24h"},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"tool_choice": "none"},
        {"tools": []},
        {"n": 1},
    ],
)
async def test_harmless_wishes_are_accepted(body: dict[str, Any], client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"input": "x", **body})
    assert response.status_code == 200, response.text


async def test_names_in_errors_are_those_of_this_api(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"input": "x" * 600})
    error = check_error(response, 400, "context_length_exceeded", "input")
    assert "max_tokens" not in error["message"] and "messages" not in error["message"]
