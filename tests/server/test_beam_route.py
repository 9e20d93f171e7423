"""use_beam_search over HTTP: what reaches the engine, what comes back, what does not go with it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, answer_text
from server_live import LiveServer, until

ROUTES = {
    "/v1/completions": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
}


async def post(client: httpx.AsyncClient, route: str = "/v1/completions", **body: Any) -> httpx.Response:
    whole = {"model": "fake", "max_tokens": 3, "use_beam_search": True, **ROUTES[route], **body}
    return await client.post(route, json=whole)


@pytest.mark.parametrize("route", ROUTES)
async def test_the_best_answers_come_back_in_order(
    client: httpx.AsyncClient, engine: FakeEngine, route: str
) -> None:
    wishes = {"length_penalty": 0.5, "early_stopping": True, "ignore_eos": True, "temperature": 0.7}
    response = await post(client, route, n=2, beam_width=4, **wishes)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert reply["usage"]["completion_tokens"] == 6
    (search,) = engine.searches
    assert (search.beam_width, search.n, search.max_tokens) == (4, 2, 3)
    assert (search.length_penalty, search.early_stopping, search.ignore_eos) == (0.5, True, True)
    assert engine.num_open == 0


@pytest.mark.parametrize(
    ("fields", "width"),
    [({"n": 3}, 3), ({"best_of": 5, "n": 2}, 5), ({"beam_width": 6, "best_of": 6}, 6), ({}, 1)],
)
async def test_the_width_has_several_names(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, int], width: int
) -> None:
    response = await post(client, **fields)
    assert response.status_code == 200, response.text
    assert engine.searches[-1].beam_width == width
    assert len(response.json()["choices"]) == fields.get("n", 1)


async def test_several_prompts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = (await post(client, prompt=[[1, 2], [3]], n=2, beam_width=2)).json()
    texts = [choice["text"] for choice in reply["choices"]]
    assert texts == [answer_text(prompt, index, 3) for prompt in ([1, 2], [3]) for index in range(2)]


async def test_logprobs_of_beams(client: httpx.AsyncClient) -> None:
    reply = (await post(client, beam_width=2, logprobs=2)).json()
    assert len(reply["choices"][0]["logprobs"]["token_logprobs"]) == 3
    assert len(reply["choices"][0]["logprobs"]["top_logprobs"][0]) == 3


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": True}, "stream"),
        ({"top_p": 0.9}, "top_p"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"stop": "x"}, "stop"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"min_tokens": 1}, "min_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"xtc_probability": 0.5}, "xtc_probability"),
        ({"beam_width": 0}, "beam_width"),
        ({"beam_width": -4}, "beam_width"),
        ({"beam_width": 65}, "beam_width"),
        ({"beam_width": 2, "n": 3}, "n"),
        ({"beam_width": 10**6}, "beam_width"),
        ({"beam_width": "4"}, "beam_width"),
        ({"beam_width": 2, "length_penalty": 1e9}, "length_penalty"),
        ({"beam_width": 2, "early_stopping": "soon"}, "early_stopping"),
    ],
    ids=str,
)
async def test_what_does_not_go_with_it_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, route: str, fields: dict[str, Any], param: str
) -> None:
    response = await post(client, route, **fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param)
    assert engine.num_started == 0


async def test_values_that_ask_for_nothing_are_fine(client: httpx.AsyncClient) -> None:
    neutral = {
        "top_p": 1,
        "top_k": -1,
        "presence_penalty": 0,
        "repetition_penalty": 1,
        "stop": [],
        "stream": False,
    }
    assert (await post(client, beam_width=2, **neutral)).status_code == 200


@pytest.mark.parametrize("field", ["beam_width", "length_penalty", "early_stopping"])
async def test_its_fields_need_it(client: httpx.AsyncClient, field: str) -> None:
    value: Any = True if field == "early_stopping" else 2
    response = await post(client, use_beam_search=False, **{field: value})
    assert response.status_code == 400 and response.json()["error"]["param"] == field
    neutral: Any = {"beam_width": 1, "length_penalty": 1, "early_stopping": False}[field]
    assert (await post(client, use_beam_search=None, **{field: neutral})).status_code == 200


async def test_a_client_that_leaves_ends_the_search(live: LiveServer, engine: FakeEngine) -> None:
    engine.delay_s = 0.05
    body = {"model": "fake", "prompt": "hi", "max_tokens": 400, "use_beam_search": True, "beam_width": 4}
    async with httpx.AsyncClient(base_url=live.url) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/completions", json=body, timeout=0.3)
    await asyncio.to_thread(until, lambda: engine.num_aborted == 1)
    assert engine.num_open == 0
