"""The rarer samplers' fields: they reach the engine by their names, and wrong ones are named."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_fakes import BOS, FakeEngine

ROUTES = {
    "/v1/completions": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
}

FIELDS = {
    "repeat_last_n": 64,
    "typical_p": 0.9,
    "top_n_sigma": 1.5,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.2,
    "dry_multiplier": 0.8,
    "dry_base": 1.5,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 100,
    "dry_sequence_breakers": ["\n"],
    "detokenize": False,
    "truncation_side": "right",
}


async def post(client: httpx.AsyncClient, route: str, **body: Any) -> httpx.Response:
    return await client.post(route, json={"model": "fake", "max_tokens": 2, **ROUTES[route], **body})


@pytest.mark.parametrize("route", ROUTES)
async def test_every_field_reaches_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine, route: str
) -> None:
    response = await post(client, route, **FIELDS)
    assert response.status_code == 200
    _, params, _ = engine.seen[-1]
    assert {name: getattr(params, name) for name in FIELDS} == FIELDS
    assert [params.dry_sequence_breakers for params in engine.breakers_found] == [["\n"]], (
        "before it is submitted"
    )


@pytest.mark.parametrize("route", ROUTES)
async def test_repetition_detection_reaches_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine, route: str
) -> None:
    wish = {"max_pattern_size": 8, "min_pattern_size": 2, "min_count": 4}
    assert (await post(client, route, repetition_detection=wish)).status_code == 200
    found = engine.seen[-1][1].repetition_detection
    assert found is not None and (found.max_pattern_size, found.min_pattern_size, found.min_count) == (
        8,
        2,
        4,
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("typical_p", 0, "typical_p"),
        ("typical_p", 1.5, "typical_p"),
        ("top_n_sigma", 1e9, "top_n_sigma"),
        ("top_n_sigma", "1", "top_n_sigma"),
        ("xtc_probability", -0.1, "xtc_probability"),
        ("xtc_threshold", 2, "xtc_threshold"),
        ("dry_multiplier", -1, "dry_multiplier"),
        ("dry_base", 0.5, "dry_base"),
        ("dry_allowed_length", 10**9, "dry_allowed_length"),
        ("dry_penalty_last_n", -2, "dry_penalty_last_n"),
        ("dry_penalty_last_n", 10**30, "dry_penalty_last_n"),
        ("dry_sequence_breakers", [""], "dry_sequence_breakers"),
        ("dry_sequence_breakers", ["x" * 41], "dry_sequence_breakers"),
        ("dry_sequence_breakers", ["x"] * 17, "dry_sequence_breakers"),
        ("dry_sequence_breakers", "\n", "dry_sequence_breakers"),
        ("repeat_last_n", -2, "repeat_last_n"),
        ("repetition_detection", {"max_pattern_size": 4}, "repetition_detection.min_count"),
        ("repetition_detection", {"max_pattern_size": 10**9, "min_count": 2},
         "repetition_detection.max_pattern_size"),
        ("repetition_detection", 5, "repetition_detection"),
        ("logprob_token_ids", [5], "logprob_token_ids"),
        ("logprob_token_ids", list(range(129)), "logprob_token_ids"),
        ("truncation_side", "middle", "truncation_side"),
        ("detokenize", "no", "detokenize"),
    ],
)  # fmt: skip
async def test_wrong_values_are_named(
    client: httpx.AsyncClient, engine: FakeEngine, route: str, field: str, value: Any, param: str
) -> None:
    response = await post(client, route, **{field: value})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert engine.num_started == 0
    assert (await post(client, route)).status_code == 200


async def test_stop_strings_need_text(client: httpx.AsyncClient) -> None:
    response = await post(client, "/v1/completions", detokenize=False, stop="x")
    assert response.status_code == 400 and response.json()["error"]["param"] == "stop"


async def test_a_prompt_is_cut_on_either_side(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for prompt, whole in (("abcdef", [BOS, *b"abcdef"]), ([5, 6, 7, 8], [5, 6, 7, 8])):
        for side, expected in ((None, whole[-3:]), ("left", whole[-3:]), ("right", whole[:3])):
            body = {"prompt": prompt, "truncate_prompt_tokens": 3, "truncation_side": side}
            assert (await post(client, "/v1/completions", **body)).status_code == 200
            assert engine.seen[-1][0] == expected
    chat = {"truncate_prompt_tokens": 4, "truncation_side": "right"}
    assert (await post(client, "/v1/chat/completions", **chat)).status_code == 200
    assert engine.seen[-1][0] == list(b"[use")


async def test_named_tokens_are_asked_for_with_logprobs(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    chat = await post(client, "/v1/chat/completions", logprobs=True, logprob_token_ids=[97, 98])
    assert chat.status_code == 200
    assert engine.seen[-1][1].logprob_token_ids == [97, 98]
    plain = await post(
        client, "/v1/completions", logprobs=1, logprob_token_ids=[97], return_tokens_as_token_ids=True
    )
    assert plain.status_code == 200
    out_of_range = await post(client, "/v1/completions", logprobs=1, logprob_token_ids=[10**6])
    assert out_of_range.json()["error"]["param"] == "logprob_token_ids"
