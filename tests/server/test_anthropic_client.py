"""The official anthropic client against a real port: whole and streamed messages are the same message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from scripted_engine import ScriptedEngine, use_markup
from server_fakes import FakeEngine, answer_text, fake_config
from server_live import LiveServer, until

from octavo.base.errors import EngineError, ErrorCode

HELLO: Any = [{"role": "user", "content": "hello"}]
HELLO_IDS = [*b"[user]hello[assistant]"]
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def api(live: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ScriptedEngine, anthropic.Anthropic]]:
    use_markup(monkeypatch)
    engine = ScriptedEngine(fake_config())
    engine.tokenizer.chat_template = "{{ tools }}"  # One that can show them to the model.
    server = LiveServer(engine)
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield engine, client
    server.stop()


def streamed(client: anthropic.Anthropic, **body: Any) -> tuple[list[Any], anthropic.types.Message]:
    """Raw events, and the message that the client makes of them."""
    raw = list(client.messages.create(stream=True, **body))
    with client.messages.stream(**body) as stream:
        return raw, stream.get_final_message()


def same(client: anthropic.Anthropic, **body: Any) -> tuple[list[Any], anthropic.types.Message]:
    """Ask for it streamed and whole; both have to be the same message."""
    body = {"model": "fake", "messages": HELLO, "max_tokens": 50, **body}
    whole = client.messages.create(**body)
    events, message = streamed(client, **body)
    assert message.to_dict() | {"id": ""} == whole.to_dict() | {"id": ""}
    return events, whole


def test_text(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    events, message = same(api, max_tokens=4)
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 4,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0].message.content == [] and events[0].message.stop_reason is None
    (block,) = message.content
    assert block.type == "text" and block.text == answer_text(HELLO_IDS, 0, 4)
    assert message.stop_reason == "max_tokens" and message.id.startswith("msg_")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (11, len(HELLO_IDS) // 2)
    assert usage.cache_creation_input_tokens == 0 and usage.output_tokens == 4


def test_a_ping_follows_the_start(api: anthropic.Anthropic) -> None:
    response = api.messages.with_raw_response.create(
        model="fake", messages=HELLO, max_tokens=1, stream=True, extra_headers={"accept": "text/event-stream"}
    )
    names = [
        line.removeprefix("event: ") for line in response.text().splitlines() if line.startswith("event")
    ]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert "[DONE]" not in response.text()


def test_options_reach_the_engine(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    api.messages.create(
        model="alias",
        messages=HELLO,
        max_tokens=3,
        stop_sequences=["x", "yy"],
        system="be kind",
        metadata={"user_id": "u"},
        service_tier="auto",
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7},
    )
    ((_, params, _),) = engine.seen
    assert (params.max_tokens, params.stop) == (3, ["x", "yy"])
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 7)
    assert engine.tokenizer.rendered[0]["messages"][0] == {"role": "system", "content": "be kind"}


def test_prefill_is_continued(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    messages: Any = [*HELLO, {"role": "assistant", "content": "The answer is ("}]
    _, message = same(api, messages=messages, max_tokens=2)
    rendered = engine.tokenizer.rendered[0]
    assert rendered["continue_final_message"] and not rendered["add_generation_prompt"]
    assert message.content[0].text == answer_text([*b"[user]hello[assistant]The answer is ("], 0, 2)  # type: ignore[union-attr]


def test_an_answer_may_take_less_than_max_tokens(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    """Agents ask for 32,000 tokens whatever the context: the end of the context is told apart."""
    _, message = same(api, max_tokens=32_000, timeout=60)
    assert message.stop_reason == "model_context_window_exceeded"
    assert message.usage.output_tokens == 512 - len(HELLO_IDS)
    with pytest.raises(anthropic.BadRequestError, match="at most 512"):
        api.messages.create(model="fake", max_tokens=1, messages=[{"role": "user", "content": "x" * 500}])


def test_max_tokens_zero_fills_the_cache_only(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    control: Any = {"type": "ephemeral"}
    _, message = same(api, max_tokens=0, cache_control=control)
    assert message.content == [] and message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 0 and engine.seen[0][1].max_tokens == 1
    assert engine.pins[0][0].num_tokens == 16


Scripted = tuple[ScriptedEngine, anthropic.Anthropic]


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_thinking_text_and_calls(scripted: Scripted, piece: int) -> None:
    engine, client = scripted
    engine.piece = piece
    engine.script = (
        '<think>hm,\nso</think>\n\nLet me look.\n<call weather>{"city": "Rome"}</call>\n'
        "<call weather>{}</call>"
    )
    events, message = same(client, tools=[WEATHER])
    kinds = [block.type for block in message.content]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, first, second = message.content
    assert thinking.thinking == "hm,\nso" and thinking.signature  # type: ignore[union-attr]
    assert text.text == "\n\nLet me look.\n"  # type: ignore[union-attr]
    assert first.input == {"city": "Rome"} and first.name == "weather"  # type: ignore[union-attr]
    assert second.input == {} and second.id != first.id  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"
    starts = [event.index for event in events if event.type == "content_block_start"]
    stops = [event.index for event in events if event.type == "content_block_stop"]
    assert starts == stops == [0, 1, 2, 3]
    assert [e.delta.type for e in events if e.type == "content_block_delta" and e.index == 0][-1] == (
        "signature_delta"
    )


def test_thinking_can_be_left_out(scripted: Scripted) -> None:
    engine, client = scripted
    engine.script = "<think>secret</think>said"
    events, message = same(client, thinking={"type": "adaptive", "display": "omitted"})
    assert message.content[0].thinking == "" and message.content[0].signature  # type: ignore[union-attr]
    assert "secret" not in repr(events) and message.content[1].text == "said"  # type: ignore[union-attr]


def test_a_thinking_budget_is_for_models_that_think(scripted: Scripted) -> None:
    engine, client = scripted
    engine.script = "said"
    thinking = {"type": "enabled", "budget_tokens": 20}
    same(client, thinking=thinking)
    assert engine.seen[-1][1].thinking_budget is None
    engine.tokenizer.chat_template = "{{ tools }} {{ enable_thinking }} <think> </think>"
    same(client, thinking=thinking)
    budget = engine.seen[-1][1].thinking_budget
    assert budget is not None and budget.budget == 20
    assert engine.tokenizer.rendered[-1]["template_kwargs"]["enable_thinking"] is True


@pytest.mark.parametrize(
    ("script", "finish", "stop", "expected"),
    [
        ("all", "stop", None, ("end_turn", None)),
        ("all", "stop", "END", ("stop_sequence", "END")),
        ("all", "stop", "<|other|>", ("end_turn", None)),
        ("all", "length", None, ("max_tokens", None)),
        ("", "stop", None, ("end_turn", None)),
        ('<call weather>{"city": "Ro', "length", None, ("max_tokens", None)),
    ],
)
def test_stop_reasons(
    scripted: Scripted, script: str, finish: str, stop: str | None, expected: tuple[str, str | None]
) -> None:
    engine, client = scripted
    engine.script, engine.finish_reason, engine.stop_reason = script, finish, stop
    _, message = same(client, stop_sequences=["END"])
    assert (message.stop_reason, message.stop_sequence) == expected


def test_white_space_alone_makes_no_block(scripted: Scripted) -> None:
    engine, client = scripted
    engine.script = "\n \n<call weather>{}</call>\n"
    _, message = same(client, tools=[WEATHER])
    assert [block.type for block in message.content] == ["tool_use"]


def test_a_turn_with_a_tool_can_be_sent_back(scripted: Scripted) -> None:
    engine, client = scripted
    engine.script = '<think>a</think>b<call weather>{"city": "Rome"}</call>'
    first = client.messages.create(model="fake", max_tokens=50, messages=HELLO, tools=[WEATHER])
    call = next(block for block in first.content if block.type == "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    client.messages.create(
        model="fake",
        max_tokens=50,
        tools=[WEATHER],
        messages=[*HELLO, first.to_param(), {"role": "user", "content": [result]}],
    )
    _, assistant, tool = engine.tokenizer.rendered[-1]["messages"]
    assert assistant["content"] == "b" and assistant["reasoning_content"] == "a"
    assert assistant["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert tool == {"role": "tool", "content": "sunny", "tool_call_id": call.id, "name": "weather"}


def test_the_beta_client_works_too(api: anthropic.Anthropic) -> None:
    message = api.beta.messages.create(
        model="fake",
        messages=HELLO,
        max_tokens=2,
        betas=["context-management-2025-06-27"],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    assert message.content[0].text == answer_text(HELLO_IDS, 0, 2)  # type: ignore[union-attr]


def test_count_tokens_is_what_a_message_takes(api: anthropic.Anthropic) -> None:
    body: Any = {"model": "fake", "messages": HELLO, "system": "be kind"}
    count = api.messages.count_tokens(**body).input_tokens
    usage = api.messages.create(max_tokens=1, **body).usage
    assert count == usage.input_tokens + (usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("stream", [False, True])
def test_errors_arrive_as_the_clients_classes(
    api: anthropic.Anthropic, engine: FakeEngine, stream: bool
) -> None:
    def ask(**body: Any) -> Any:
        return api.messages.create(
            **{"model": "fake", "messages": HELLO, "max_tokens": 3, **body}, stream=stream
        )

    with pytest.raises(anthropic.BadRequestError) as bad:
        ask(stop_sequences=[""])
    assert bad.value.type == "invalid_request_error" and bad.value.request_id
    assert bad.value.api_message is not None and bad.value.api_message.startswith("stop_sequences[0]")
    assert bad.value.body["request_id"] == bad.value.request_id  # type: ignore[index]
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(model="other")
    assert missing.value.type == "not_found_error"
    engine.refuse = EngineError("Too many requests wait.", code=ErrorCode.OVERLOADED)
    with pytest.raises(anthropic.OverloadedError) as full:
        ask()
    assert full.value.type == "overloaded_error" and full.value.response.headers["retry-after"] == "1"
    engine.refuse = None
    engine.crash_at = 0
    with pytest.raises(anthropic.InternalServerError) as bug:
        ask()
    assert bug.value.type == "api_error" and "secret" not in str(bug.value)


def test_an_error_in_a_stream_is_an_event(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    engine.fail_at = 2
    with pytest.raises(anthropic.APIStatusError) as failed:
        list(api.messages.create(model="fake", messages=HELLO, max_tokens=5, stream=True))
    assert failed.value.type == "api_error" and failed.value.api_message == "The step failed."


def test_closing_a_stream_aborts(api: anthropic.Anthropic, engine: FakeEngine) -> None:
    engine.stall_at = 2
    stream = api.messages.create(model="fake", messages=HELLO, max_tokens=5, stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 1


def test_keys_of_either_kind() -> None:
    server = LiveServer(FakeEngine(fake_config(api_key=["right"])))
    try:
        for options in ({"api_key": "right"}, {"auth_token": "right"}):
            client = anthropic.Anthropic(base_url=server.url, max_retries=0, **options)  # type: ignore[arg-type]
            assert client.messages.create(model="fake", messages=HELLO, max_tokens=1).content
        wrong = anthropic.Anthropic(base_url=server.url, max_retries=0, api_key="wrong")
        with pytest.raises(anthropic.AuthenticationError) as refused:
            wrong.messages.create(model="fake", messages=HELLO, max_tokens=1)
        assert refused.value.type == "authentication_error"
    finally:
        server.stop()


def test_models_are_listed(api: anthropic.Anthropic) -> None:
    """One route for both protocols: its cards hold what either client reads."""
    assert [model.id for model in api.models.list()] == ["fake", "alias"]
    model = api.models.retrieve("alias")
    assert model.type == "model" and model.display_name == "alias" and model.created_at.year >= 2024
