from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, answer_text
from server_replies import events

HELLO = [{"role": "user", "content": "hello"}]
IDS = [*b"[user]hello[assistant]"]


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"model": "fake", "messages": HELLO, **body})


async def test_plain_reply(client: httpx.AsyncClient) -> None:
    reply = (await post(client, max_tokens=4)).json()
    assert reply["object"] == "chat.completion" and reply["id"].startswith("chatcmpl-")
    choice = reply["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": answer_text(IDS, 0, 4), "refusal": None}
    assert choice["finish_reason"] == "length" and choice["logprobs"] is None
    assert reply["usage"]["prompt_tokens"] == len(IDS)
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == len(IDS) // 2


async def test_stream_order(client: httpx.AsyncClient) -> None:
    parts = events(await post(client, max_tokens=3, stream=True, stream_options={"include_usage": True}))
    deltas = [part["choices"][0]["delta"] for part in parts[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == list(answer_text(IDS, 0, 3))
    assert deltas[-1] == {} and parts[-2]["choices"][0]["finish_reason"] == "length"
    assert parts[-1]["choices"] == [] and parts[-1]["usage"]["completion_tokens"] == 3


async def test_each_sample_has_its_role_and_end(client: httpx.AsyncClient) -> None:
    parts = events(await post(client, max_tokens=2, n=3, stream=True))
    roles = [p["choices"][0]["index"] for p in parts if "role" in p["choices"][0]["delta"]]
    ends = [p["choices"][0]["index"] for p in parts if p["choices"][0]["finish_reason"]]
    assert sorted(roles) == sorted(ends) == [0, 1, 2]


async def test_max_tokens_default_is_the_rest(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await post(client)
    await post(client, max_completion_tokens=5)
    assert [params.max_tokens for _, params, _ in engine.seen] == [None, 5]


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs(client: httpx.AsyncClient, stream: bool) -> None:
    response = await post(client, max_tokens=1, logprobs=True, top_logprobs=1, stream=stream)
    if stream:
        choice = next(p["choices"][0] for p in events(response) if p["choices"][0]["logprobs"])
    else:
        choice = response.json()["choices"][0]
    (entry,) = choice["logprobs"]["content"]
    token = answer_text(IDS, 0, 1)
    likelier = chr(ord(token) + 1)
    assert entry == {
        "token": token,
        "logprob": -1.0,
        "bytes": [ord(token)],
        "top_logprobs": [{"token": likelier, "logprob": -0.5, "bytes": [ord(likelier)]}],
    }


async def test_logprobs_without_top(client: httpx.AsyncClient) -> None:
    entry = (await post(client, max_tokens=1, logprobs=True)).json()["choices"][0]["logprobs"]["content"][0]
    assert entry["top_logprobs"] == []


async def test_parts_become_text_and_developer_system(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    messages = [
        {"role": "developer", "content": "be kind"},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
    ]
    assert (await post(client, messages=messages)).status_code == 200
    assert engine.tokenizer.rendered[0]["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a\nb", "name": "ann"},
    ]


async def test_template_arguments(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "well"}]
    response = await post(
        client,
        messages=messages,
        continue_final_message=True,
        echo=True,
        chat_template_kwargs={"enable_thinking": False},
        documents=[{"title": "t", "text": "x"}],
        reasoning_effort="low",
        max_tokens=2,
    )
    rendered = engine.tokenizer.rendered[0]
    assert rendered["continue_final_message"] and not rendered["add_generation_prompt"]
    assert rendered["template_kwargs"] == {"enable_thinking": False, "reasoning_effort": "low"}
    assert rendered["documents"] == [{"title": "t", "text": "x"}]
    assert response.json()["choices"][0]["message"]["content"].startswith("well")


async def test_history_with_tool_calls_is_rendered(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "2"}]
    assert (await post(client, messages=messages)).status_code == 200
    rendered = engine.tokenizer.rendered[0]["messages"][1]["tool_calls"][0]
    assert rendered["function"]["arguments"] == {"x": 1}


async def test_return_token_ids(client: httpx.AsyncClient) -> None:
    reply = (await post(client, max_tokens=2, return_token_ids=True)).json()
    assert reply["prompt_token_ids"] == IDS
    assert bytes(reply["choices"][0]["token_ids"]).decode() == answer_text(IDS, 0, 2)


async def test_prompt_logprobs(client: httpx.AsyncClient) -> None:
    reply = (await post(client, max_tokens=1, prompt_logprobs=0)).json()
    assert reply["prompt_logprobs"][0] is None and len(reply["prompt_logprobs"]) == len(IDS)
