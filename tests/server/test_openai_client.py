"""The official client against a real port."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from server_fakes import BOS, FakeEngine, answer_text
from server_live import LiveServer, until

PROMPT = [BOS, *b"hi"]
HELLO = [{"role": "user", "content": "hello"}]
CHAT_IDS = [*b"[user]hello[assistant]"]


@pytest.fixture
def api(live: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["fake", "alias"]
    assert api.models.retrieve("alias").owned_by == "octavo"


def test_completions(api: openai.OpenAI) -> None:
    reply = api.completions.create(
        model="fake", prompt="hi", max_tokens=3, logprobs=2, n=2, seed=1, stop=["q"]
    )
    assert reply.choices[1].text == answer_text(PROMPT, 1, 3)
    assert reply.choices[0].logprobs is not None and len(reply.choices[0].logprobs.tokens or []) == 3
    assert reply.usage is not None and reply.usage.total_tokens == 9


def test_completions_stream(api: openai.OpenAI) -> None:
    stream = api.completions.create(
        model="fake", prompt="hi", max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == answer_text(PROMPT, 0, 4)
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4


def test_chat(api: openai.OpenAI) -> None:
    reply = api.chat.completions.create(
        model="fake",
        messages=HELLO,  # type: ignore[arg-type]
        max_completion_tokens=4,
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 5, "min_p": 0.1, "chat_template_kwargs": {"x": 1}},
    )
    choice = reply.choices[0]
    assert choice.message.content == answer_text(CHAT_IDS, 0, 4) and choice.finish_reason == "length"
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == len(CHAT_IDS) // 2


def test_chat_stream(api: openai.OpenAI) -> None:
    stream = api.chat.completions.create(model="fake", messages=HELLO, max_tokens=4, n=2, stream=True)  # type: ignore[call-overload]
    texts = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [answer_text(CHAT_IDS, 0, 4), answer_text(CHAT_IDS, 1, 4)]


def test_stream_helper(api: openai.OpenAI) -> None:
    with api.chat.completions.stream(model="fake", messages=HELLO, max_tokens=4) as stream:  # type: ignore[arg-type]
        text = "".join(event.delta for event in stream if event.type == "content.delta")
    assert text == answer_text(CHAT_IDS, 0, 4)


def test_errors_arrive_as_the_clients_classes(api: openai.OpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        api.completions.create(model="fake", prompt="x", temperature=-1)
    assert bad.value.param == "temperature" and bad.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError):
        api.completions.create(model="other", prompt="x")
    engine.fail_at = 2
    with pytest.raises(openai.APIError, match="step failed"):
        list(api.completions.create(model="fake", prompt="x", stream=True))


def test_closing_a_stream_aborts(api: openai.OpenAI, engine: FakeEngine) -> None:
    engine.stall_at = 2
    stream = api.completions.create(model="fake", prompt="x", stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 1
