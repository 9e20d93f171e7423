from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from server_fakes import BOS, FakeEngine, answer_text, fake_config
from server_replies import events

from octavo.engine.outputs import RequestOutput
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.server import submit
from octavo.server.app import create_app

IDS = [BOS, *b"hi"]


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/completions", json={"model": "fake", "prompt": "hi", **body})


async def test_plain_reply(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = (await post(client, max_tokens=4)).json()
    assert reply["choices"] == [
        {
            "index": 0,
            "text": answer_text(IDS, 0, 4),
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
        }
    ]
    assert reply["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert reply["object"] == "text_completion" and reply["id"].startswith("cmpl-")
    assert engine.num_open == 0 and engine.num_aborted == 0


async def test_stream_equals_reply(client: httpx.AsyncClient) -> None:
    whole = (await post(client, max_tokens=5, n=2)).json()
    parts = events(await post(client, max_tokens=5, n=2, stream=True, stream_options={"include_usage": True}))
    for choice in whole["choices"]:
        text = "".join(c["text"] for part in parts for c in part["choices"] if c["index"] == choice["index"])
        assert text == choice["text"]
    assert parts[-1]["choices"] == [] and parts[-1]["usage"] == whole["usage"]
    assert all("usage" not in part for part in parts[:-1])
    reasons = [c["finish_reason"] for part in parts for c in part["choices"] if c["finish_reason"]]
    assert reasons == ["length", "length"]


async def test_running_usage(client: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    parts = events(await post(client, max_tokens=3, stream=True, stream_options=options))
    assert [part["usage"]["completion_tokens"] for part in parts] == [1, 2, 3, 3]


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_and_samples_keep_their_places(client: httpx.AsyncClient, stream: bool) -> None:
    prompts = [[1, 2], [3], [4, 5, 6]]
    response = await post(client, prompt=prompts, n=2, max_tokens=3, stream=stream)
    texts = [""] * 6
    for part in events(response) if stream else [response.json()]:
        for choice in part["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [answer_text(prompt, sample, 3) for prompt in prompts for sample in range(2)]


async def test_echo_with_logprobs_is_what_lm_eval_reads(client: httpx.AsyncClient) -> None:
    reply = (await post(client, prompt=IDS, echo=True, logprobs=1, max_tokens=1, temperature=0)).json()
    choice = reply["choices"][0]
    answer = answer_text(IDS, 0, 1)
    assert choice["text"] == "hi" + answer
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["<256>", "h", "i", answer]
    assert logprobs["token_logprobs"] == [None, -1.0, -1.0, -1.0]
    assert logprobs["top_logprobs"] == [
        None,
        {"h": -1.0, "i": -0.5},
        {"i": -1.0, "j": -0.5},
        {answer: -1.0, chr(ord(answer) + 1): -0.5},
    ]
    assert logprobs["text_offset"] == [0, 0, 1, 2], "places in the text, which does not show <256>"


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_with_no_new_tokens(client: httpx.AsyncClient, engine: FakeEngine, stream: bool) -> None:
    response = await post(client, prompt=IDS, echo=True, logprobs=0, max_tokens=0, stream=stream)
    (reply,) = events(response) if stream else [response.json()]
    choice = reply["choices"][0]
    assert choice["text"] == "hi" and choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == ["<256>", "h", "i"]
    assert engine.seen[0][1].max_tokens == 1
    if not stream:
        assert reply["usage"]["completion_tokens"] == 0


async def test_streamed_echo_and_logprobs_add_up(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"prompt": "hi", "echo": True, "logprobs": 2, "max_tokens": 3}
    whole = (await post(client, **body)).json()["choices"][0]
    parts = [part["choices"][0] for part in events(await post(client, **body, stream=True))]
    assert "".join(part["text"] for part in parts) == whole["text"]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [item for part in parts for item in part["logprobs"][name]] == whole["logprobs"][name]


async def test_every_sample_of_a_stream_echoes_the_prompts_logprobs() -> None:
    engine = OneSampleAtATime(fake_config())
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        body: dict[str, Any] = {"echo": True, "logprobs": 1, "n": 2, "max_tokens": 2}
        whole = (await post(client, **body)).json()["choices"]
        parts = events(await post(client, **body, stream=True))
    for choice in whole:
        mine = [each for part in parts for each in part["choices"] if each["index"] == choice["index"]]
        assert "".join(each["text"] for each in mine) == choice["text"]
        assert [item for each in mine for item in each["logprobs"]["tokens"]] == choice["logprobs"]["tokens"]


class OneSampleAtATime(FakeEngine):
    """Samples begin when there is room for them; what is known of the prompt comes with the first output."""

    async def _stream(
        self, prompt: list[int], params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        has_come = False
        async for output in super()._stream(prompt, params, request_id):
            for part in output.outputs if params.output_kind is RequestOutputKind.DELTA else ():
                known = None if has_come else output.prompt_logprobs
                has_come = True
                yield msgspec.structs.replace(output, outputs=[part], prompt_logprobs=known)
            if params.output_kind is not RequestOutputKind.DELTA:
                yield output


async def test_minus_infinity_stays_json(client: httpx.AsyncClient) -> None:
    reply = (await post(client, logprobs=4, max_tokens=1)).json()
    assert -9999.0 in reply["choices"][0]["logprobs"]["top_logprobs"][0].values()


async def test_tokens_as_ids(client: httpx.AsyncClient) -> None:
    body = {"logprobs": 0, "max_tokens": 1, "return_tokens_as_token_ids": True, "return_token_ids": True}
    choice = (await post(client, **body)).json()["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{choice['token_ids'][0]}"]
    assert choice["prompt_token_ids"] == IDS


async def test_prompt_logprobs(client: httpx.AsyncClient) -> None:
    choice = (await post(client, prompt_logprobs=1, max_tokens=1)).json()["choices"][0]
    assert choice["prompt_logprobs"][0] is None
    assert choice["prompt_logprobs"][1]["104"] == {"logprob": -1.0, "rank": 2, "decoded_token": "h"}


async def test_request_values_win_over_the_checkpoints(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.default_sampling = {"temperature": 0.6, "top_p": 0.9}
    await post(client, temperature=0)
    params = engine.seen[0][1]
    assert (params.temperature, params.top_p) == (0.0, 0.9)


async def test_all_extras_arrive(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    extras: dict[str, Any] = {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "min_tokens": 1,
        "stop_token_ids": [5],
        "ignore_eos": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "include_stop_str_in_output": True,
        "allowed_token_ids": [1, 2],
        "bad_words": ["no"],
        "seed": 7,
        "stop": ["x", "y"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    }
    await post(client, **extras, logit_bias={"65": 2.0}, cache_salt="tenant")
    _, params, rest = engine.seen[0]
    assert {name: getattr(params, name) for name in extras} == extras
    assert params.logit_bias == {65: 2.0} and rest["cache_salt"] == "tenant"


async def test_defaults(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await post(client, max_tokens=None, user="me", metadata={"a": "b"}, store=False, n=None)
    assert engine.seen[0][1].max_tokens == 16
    await post(client, prompt=[65] * 505)
    assert engine.seen[1][1].max_tokens == 7, "a default nobody asked for fits itself into the context"


async def test_truncation(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await post(client, prompt="abcdef", truncate_prompt_tokens=2)
    assert engine.seen[0][0] == [*b"ef"]
    await post(client, prompt="a" * 5000, truncate_prompt_tokens=-1, max_tokens=12)
    assert engine.seen[1][0] == [*b"a"] * 500
    reply = await post(client, prompt="abcdef", truncate_prompt_tokens=2, echo=True, max_tokens=1)
    assert reply.json()["choices"][0]["text"].startswith("ef")


async def test_prompts_of_a_body_are_let_in_together_or_not_at_all(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Each by itself was small enough: one body passed the bounds on the queue many times over."""
    engine.room = 7
    prompts = ["a", "b", "c", "d"]
    refused = await post(client, prompt=prompts, n=2)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] and engine.seen == []
    assert (await post(client, prompt=prompts[:3], n=2)).status_code == 200
    assert (await post(client, prompt="a", n=8)).status_code == 200, "the engine itself asks about one prompt"


async def test_many_prompts_are_not_admitted_in_one_go(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take milliseconds to check, and others are served meanwhile."""
    monkeypatch.setattr(submit, "LONGEST_TURN_S", -1.0)
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(engine.seen))
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert (await post(client, prompt=["a", "b", "c", "d"])).status_code == 200
    task.cancel()
    assert {1, 2, 3} <= set(turns)


async def test_text_that_cannot_fit_is_not_tokenized_whatever_is_to_be_kept_of_it(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 MB took 12 s and 600 MB, only to be refused: more tokens were to be kept than the context holds."""
    lengths: list[int] = []
    encode = engine.tokenizer.encode
    monkeypatch.setattr(
        engine.tokenizer, "encode", lambda text, *more: lengths.append(len(text)) or encode(text)
    )
    for keep in (None, 513, 10**9):
        response = await post(client, prompt="a" * 100_000, max_tokens=1, truncate_prompt_tokens=keep)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
        assert error["param"] == "prompt" and "100000 characters" in error["message"]
    assert lengths == []
    assert (await post(client, prompt="abc", truncate_prompt_tokens=10**9)).status_code == 200
    assert engine.seen[-1][0] == [BOS, *b"abc"]


async def test_empty_prompt_begins_a_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for prompt in ([], [[]], ""):
        assert (await post(client, prompt=prompt, add_special_tokens=False)).status_code == 200
        assert engine.seen[-1][0] == [BOS]
    engine.tokenizer.bos_token_id = None
    refused = await post(client, prompt="")
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "prompt"


async def test_alias_is_reported_back(client: httpx.AsyncClient) -> None:
    assert (await post(client, model="alias")).json()["model"] == "alias"
    assert (await post(client, model=None)).json()["model"] == "fake"


async def test_long_text_is_rendered_in_a_thread(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    response = await post(client, prompt="x" * 20_000, truncate_prompt_tokens=4)
    assert response.status_code == 200 and engine.seen[0][0] == [120] * 4
