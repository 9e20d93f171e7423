"""The official ollama client against a server: what applications see."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import ollama
import pytest
from scripted_engine import ScriptedEngine, use_markup
from server_fakes import FakeEngine, answer_text, fake_config
from server_live import LiveServer, until

HELLO = [{"role": "user", "content": "hi"}]
CHAT_IDS = [*b"[user]hi[assistant]"]
THREE = {"num_predict": 3, "temperature": 0.5}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def api(live: LiveServer) -> ollama.Client:
    return ollama.Client(live.url)


def test_chat(api: ollama.Client, engine: FakeEngine) -> None:
    reply = api.chat("fake", HELLO, options=THREE)
    assert reply.model == "fake" and reply.done and reply.done_reason == "length"
    assert reply.message.role == "assistant" and reply.message.content == answer_text(CHAT_IDS, 0, 3)
    assert reply.message.thinking is None and reply.message.tool_calls is None
    assert (reply.prompt_eval_count, reply.eval_count) == (len(CHAT_IDS), 3)
    durations = (reply.load_duration, reply.prompt_eval_duration, reply.eval_duration, reply.total_duration)
    assert all(isinstance(ns, int) and 0 < ns < 10**10 for ns in durations)
    assert reply.total_duration >= max(ns or 0 for ns in durations)  # type: ignore[operator]
    assert reply.created_at is not None and datetime.fromisoformat(reply.created_at).tzinfo is not None
    assert engine.seen[-1][1].temperature == 0.5


def test_chat_stream(api: ollama.Client) -> None:
    parts = list(api.chat("fake", HELLO, options=THREE, stream=True))
    assert "".join(part.message.content or "" for part in parts) == answer_text(CHAT_IDS, 0, 3)
    assert [part.done for part in parts] == [False] * 3 + [True]
    assert parts[0].eval_count is None and parts[-1].eval_count == 3
    assert parts[-1].done_reason == "length" and parts[-1].message.content == ""


async def test_async_client(live: LiveServer) -> None:
    client = ollama.AsyncClient(live.url)
    reply = await client.chat("fake", HELLO, options=THREE)
    stream = await client.chat("fake", HELLO, options=THREE, stream=True)
    text = "".join([part.message.content or "" async for part in stream])
    assert text == reply.message.content == answer_text(CHAT_IDS, 0, 3)
    parts = await client.generate("fake", "hi", raw=True, options=THREE, stream=True)
    assert len([part async for part in parts]) == 4


def test_generate(api: ollama.Client, engine: FakeEngine) -> None:
    reply = api.generate("fake", "hi", system="Be kind.", options=THREE)
    prompt = [*b"[system]Be kind.[user]hi[assistant]"]
    assert reply.response == answer_text(prompt, 0, 3) and reply.done_reason == "length"
    assert reply.context == [*prompt, *reply.response.encode()]
    followed = api.generate("fake", "more", context=reply.context, options=THREE)
    assert engine.seen[-1][0] == [*reply.context, *b"[user]more[assistant]"]
    assert followed.prompt_eval_count == len(engine.seen[-1][0])


def test_generate_stream(api: ollama.Client) -> None:
    parts = list(api.generate("fake", "hi", options=THREE, stream=True))
    assert "".join(part.response or "" for part in parts) == answer_text(CHAT_IDS, 0, 3)
    assert parts[-1].context == [*CHAT_IDS, *answer_text(CHAT_IDS, 0, 3).encode()]
    assert parts[0].context is None


def test_raw_prompts_meet_no_template(api: ollama.Client, engine: FakeEngine) -> None:
    reply = api.generate("fake", "a <b>", raw=True, options=THREE)
    assert engine.seen[-1][0] == [256, *b"a <b>"] and reply.context is None


def test_models_without_a_template_continue_the_text(api: ollama.Client, engine: FakeEngine) -> None:
    engine.tokenizer.chat_template = None
    reply = api.generate("fake", "Once", options=THREE)
    assert engine.seen[-1][0] == [256, *b"Once"] and reply.context is not None
    with pytest.raises(ollama.ResponseError, match="template"):
        api.chat("fake", HELLO)


@pytest.mark.parametrize("keep_alive", [None, 0, "5m", -1, 3.5])
def test_requests_without_words_load_or_unload(api: ollama.Client, keep_alive: Any) -> None:
    reason = "unload" if keep_alive == 0 else "load"
    generated = api.generate("fake", keep_alive=keep_alive)
    assert (generated.done, generated.done_reason, generated.response) == (True, reason, "")
    chatted = api.chat("fake", keep_alive=keep_alive)
    assert (chatted.done, chatted.done_reason, chatted.message.content) == (True, reason, "")


def test_logprobs(api: ollama.Client) -> None:
    for reply in (
        api.chat("fake", HELLO, options=THREE, logprobs=True, top_logprobs=2),
        api.generate("fake", "hi", options=THREE, logprobs=True, top_logprobs=2),
        api.generate("fake", "hi", raw=True, options=THREE, logprobs=True, top_logprobs=2),
    ):
        assert reply.logprobs is not None and len(reply.logprobs) == 3
        assert [len(entry.top_logprobs or []) for entry in reply.logprobs] == [2, 2, 2]
        assert reply.logprobs[0].logprob == -1.0
    parts = list(api.chat("fake", HELLO, options=THREE, logprobs=True, stream=True))
    assert sum(len(part.logprobs or []) for part in parts) == 3


def test_options(api: ollama.Client, engine: FakeEngine) -> None:
    options = {
        "top_k": 7,
        "top_p": 0.5,
        "min_p": 0.1,
        "seed": 42,
        "stop": ["\n", "user:"],
        "repeat_penalty": 1.2,
        "repeat_last_n": 64,
        "typical_p": 0.7,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
        "num_predict": -1,
        "num_ctx": 512,
        "mirostat": 0,
        "num_gpu": 1,
        "num_thread": 8,
        "num_keep": 5,
        "num_batch": 2,
        "use_mmap": True,
        "numa": False,
        "penalize_newline": True,
    }
    api.chat("fake", HELLO, options=options)
    params = engine.seen[-1][1]
    assert (params.top_k, params.top_p, params.min_p, params.seed) == (7, 0.5, 0.1, 42)
    assert params.stop == ["\n", "user:"] and params.max_tokens is None
    assert (params.repeat_last_n, params.typical_p) == (64, 0.7)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.2, 1.5, 1.0)
    api.chat("fake", HELLO, options={"repeat_last_n": 0, "repeat_penalty": 1.2, "seed": -1})
    params = engine.seen[-1][1]
    assert (params.repetition_penalty, params.seed) == (1.0, None)


def test_the_checkpoints_defaults_hold(api: ollama.Client, engine: FakeEngine) -> None:
    engine.default_sampling.update({"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.1})
    api.chat("fake", HELLO)
    assert (engine.seen[-1][1].temperature, engine.seen[-1][1].top_p) == (0.6, 0.95)
    shown = api.show("fake").parameters
    assert shown is not None and "temperature" in shown and "repeat_penalty" in shown


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_format(api: ollama.Client, engine: FakeEngine) -> None:
    for ask in (
        lambda form: api.chat("fake", HELLO, format=form, options=THREE),
        lambda form: api.generate("fake", "hi", format=form, options=THREE),
        lambda form: api.generate("fake", "hi", raw=True, format=form, options=THREE),
    ):
        ask("json")
        form: Any = engine.seen[-1][1].structured_outputs
        assert form is not None and "object" in form.canonical and "city" not in form.canonical
        ask(CITY)
        form = engine.seen[-1][1].structured_outputs
        assert form is not None and '"required": ["city"]' in form.canonical
        ask("")
        assert engine.seen[-1][1].structured_outputs is None
        with pytest.raises(ollama.ResponseError, match=r"format\.properties\.city") as bad:
            ask({"type": "object", "properties": {"city": {"type": "town"}}})
        assert bad.value.status_code == 400


THINKING_TEMPLATE = "{% if enable_thinking %}<think></think>{% endif %}"
TOOLS_TEMPLATE = "{{ tools }} in <tool_call></tool_call>"


@pytest.mark.parametrize("think", [True, False, "low", "high"])
def test_think_reaches_the_template(api: ollama.Client, engine: FakeEngine, think: Any) -> None:
    engine.tokenizer.chat_template = THINKING_TEMPLATE
    assert "thinking" in (api.show("fake").capabilities or [])
    api.chat("fake", HELLO, think=think, options=THREE)
    given = engine.tokenizer.rendered[-1]["template_kwargs"]
    assert given["enable_thinking"] is given["thinking"] is (think is not False)
    assert given.get("reasoning_effort") == (think if isinstance(think, str) else None)


def test_a_begun_answer_is_continued(api: ollama.Client, engine: FakeEngine) -> None:
    api.chat("fake", [*HELLO, {"role": "assistant", "content": "Well,"}], options=THREE)
    assert engine.tokenizer.rendered[-1]["continue_final_message"] is True
    assert engine.tokenizer.rendered[-1]["add_generation_prompt"] is False


def test_tool_results_find_their_calls(api: ollama.Client, engine: FakeEngine) -> None:
    call = ollama.Message.ToolCall.Function
    messages: list[Any] = [
        {"role": "user", "content": "Weather?"},
        ollama.Message(
            role="assistant",
            thinking="Two cities.",
            tool_calls=[
                ollama.Message.ToolCall(function=call(name="weather", arguments={"city": "Rome"})),
                ollama.Message.ToolCall(function=call(name="clock", arguments={})),
            ],
        ),
        {"role": "tool", "tool_name": "clock", "content": "noon"},
        {"role": "tool", "tool_name": "weather", "content": "sun"},
    ]
    api.chat("fake", messages, options=THREE)
    _, asked, clock, weather = engine.tokenizer.rendered[-1]["messages"]
    assert asked["reasoning_content"] == "Two cities."
    assert [made["id"] for made in asked["tool_calls"]] == ["call_0", "call_1"]
    assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert (clock["tool_call_id"], weather["tool_call_id"]) == ("call_1", "call_0")
    assert clock["name"] == "clock"


SCRIPT = '<think>Hm, a city.</think>Let me look.<call weather>{"city":\n"Rome"}</call><call clock>{}</call>'


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_and_tool_calls(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    use_markup(monkeypatch)
    live = LiveServer(ScriptedEngine(fake_config(), script=SCRIPT))
    try:
        reply = ollama.Client(live.url).chat("fake", HELLO, stream=stream)
        parts = list(reply) if stream else [reply]
    finally:
        live.stop()
    assert "".join(part.message.thinking or "" for part in parts) == "Hm, a city."
    assert "".join(part.message.content or "" for part in parts) == "Let me look."
    calls = [call for part in parts for call in part.message.tool_calls or []]
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("weather", {"city": "Rome"}),
        ("clock", {}),
    ]
    assert parts[-1].done_reason == "stop" and parts[-1].done


CALL = '{"name": "weather", "arguments": {"city": "Rome"}}'
WRITTEN = f"<think>\nRome.\n</think>\n\n<tool_call>\n{CALL}\n</tool_call>"


@pytest.mark.parametrize("stream", [False, True])
def test_calls_as_models_write_them(stream: bool) -> None:
    engine = ScriptedEngine(fake_config(), script=WRITTEN)
    engine.tokenizer.chat_template = TOOLS_TEMPLATE + THINKING_TEMPLATE
    live = LiveServer(engine)
    try:
        reply = ollama.Client(live.url).chat("fake", HELLO, tools=[WEATHER], think=True, stream=stream)
        parts = list(reply) if stream else [reply]
    finally:
        live.stop()
    assert "".join(part.message.thinking or "" for part in parts).strip() == "Rome."
    assert "".join(part.message.content or "" for part in parts).strip() == ""
    (call,) = [call for part in parts for call in part.message.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Rome"})


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_cut_short_is_text(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    use_markup(monkeypatch)
    engine = ScriptedEngine(fake_config(), script='<call weather>{"city": "Ro', finish_reason="length")
    live = LiveServer(engine)
    try:
        reply = ollama.Client(live.url).chat("fake", HELLO, stream=stream)
        parts = list(reply) if stream else [reply]
    finally:
        live.stop()
    assert not any(part.message.tool_calls for part in parts)
    assert "".join(part.message.content or "" for part in parts) == '{"city": "Ro'
    assert parts[-1].done_reason == "length"


def test_list_show_and_ps(api: ollama.Client, engine: FakeEngine) -> None:
    engine.tokenizer.chat_template = "fake"
    models = api.list().models
    assert [model.model for model in models] == ["fake:latest", "alias:latest"]
    assert models[0].details is not None and models[0].details.quantization_level == "Q4_1"
    assert models[0].modified_at is not None and len(models[0].digest or "") == 64
    page = api.show("fake:latest")
    assert page.details is not None and page.details.family == "fake" and page.template == "fake"
    assert page.modelinfo is not None and page.modelinfo["fake.context_length"] == 512
    assert page.capabilities == ["completion"]
    (running, _) = api.ps().models
    assert running.context_length == 512 and running.expires_at is not None
    assert running.expires_at.year > 2100


def test_names_with_and_without_latest(api: ollama.Client) -> None:
    for name in ("fake", "fake:latest", "alias", "Alias:latest", "FAKE"):
        assert api.chat(name, HELLO, options=THREE).model == name
    for name in ("fake:7b", "latest", ":latest", "fakes"):
        with pytest.raises(ollama.ResponseError, match="not found") as bad:
            api.chat(name, HELLO)
        assert bad.value.status_code == 404


def test_pulling_what_is_there_succeeds(api: ollama.Client) -> None:
    assert api.pull("fake").status == "success"
    assert [part.status for part in api.pull("fake:latest", stream=True)] == ["success"]
    with pytest.raises(ollama.ResponseError, match="octavo serve") as bad:
        api.pull("llama3.2")
    assert bad.value.status_code == 400


def test_orders_are_refused_in_ollamas_shape(api: ollama.Client) -> None:
    for order in (
        lambda: api.push("fake"),
        lambda: api.create("mine", from_="fake"),
        lambda: api.copy("fake", "other"),
        lambda: api.delete("fake"),
        lambda: api.embed("fake", "text"),
        lambda: api.embed("fake", ["a", "b"]),
        lambda: api.embeddings("fake", "text"),
    ):
        with pytest.raises(ollama.ResponseError) as bad:
            order()  # type: ignore[no-untyped-call]
        assert isinstance(bad.value.error, str) and bad.value.status_code in (200, 400)


def test_errors_are_strings(api: ollama.Client, engine: FakeEngine) -> None:
    with pytest.raises(ollama.ResponseError, match="temperature") as bad:
        api.chat("fake", HELLO, options={"temperature": -1})
    assert bad.value.status_code == 400
    engine.fail_at = 0
    with pytest.raises(ollama.ResponseError, match="step failed") as failed:
        list(api.chat("fake", HELLO, stream=True))
    assert failed.value.status_code == 500
    engine.fail_at = 2
    parts = []
    with pytest.raises(ollama.ResponseError, match="step failed"):
        for part in api.chat("fake", HELLO, stream=True):
            parts.append(part)
    assert len(parts) == 2


def test_closing_a_stream_aborts(api: ollama.Client, engine: FakeEngine) -> None:
    for begin in (
        lambda: api.chat("fake", HELLO, stream=True),
        lambda: api.generate("fake", "x", stream=True),
    ):
        engine.stall_at = 2
        stream = begin()
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 2


async def test_a_cancelled_reply_aborts(live: LiveServer, engine: FakeEngine) -> None:
    engine.stall_at = 2
    task = asyncio.create_task(ollama.AsyncClient(live.url).chat("fake", HELLO))
    while not engine.num_open:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 1


def test_tools_are_shown_to_the_model(api: ollama.Client, engine: FakeEngine) -> None:
    engine.tokenizer.chat_template = "fake"
    with pytest.raises(ollama.ResponseError, match="template cannot show tools"):
        api.chat("fake", HELLO, tools=[WEATHER])
    engine.tokenizer.chat_template = TOOLS_TEMPLATE
    assert "tools" in (api.show("fake").capabilities or [])
    api.chat("fake", HELLO, tools=[WEATHER], options=THREE)
    (shown,) = engine.tokenizer.rendered[-1]["tools"]
    assert shown["function"]["name"] == "weather"
    api.chat("fake", HELLO, tools=[ollama.Tool(**WEATHER), clock], options=THREE)
    assert [tool["function"]["name"] for tool in engine.tokenizer.rendered[-1]["tools"]] == [
        "weather",
        "clock",
    ]


def clock(zone: str) -> str:
    """Tell the time.

    Args:
      zone: Where.
    """
    return f"noon in {zone}"
