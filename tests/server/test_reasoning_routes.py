"""/v1/chat/completions of models that think first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from scripted_engine import ScriptedEngine, use_markup
from server_fakes import FakeEngine, fake_config
from server_replies import events
from spoken_engine import THINKING, SpokenEngine, TemplateTokenizer
from test_tool_routes import Desk, client_of

HELLO = [{"role": "user", "content": "1+1?"}]
THOUGHT = "<think>\nOne and one.\n</think>\n\nTwo."


@pytest.fixture
def engine() -> SpokenEngine:
    engine = SpokenEngine(fake_config(), tokenizer=TemplateTokenizer(THINKING), says=[THOUGHT])
    engine.grammars = Desk()  # type: ignore[attr-defined]
    return engine


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine) as client:
        yield client


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"model": "fake", "messages": HELLO, **body})


async def test_reasoning_is_apart(client: httpx.AsyncClient) -> None:
    reply = (await ask(client)).json()
    message = reply["choices"][0]["message"]
    assert message["content"] == "Two."
    assert message["reasoning_content"] == message["reasoning"] == "One and one."
    assert reply["usage"]["completion_tokens_details"] == {"reasoning_tokens": len("One and one.")}


async def test_streamed(client: httpx.AsyncClient) -> None:
    parts = events(await ask(client, stream=True, stream_options={"include_usage": True}))
    deltas = [part["choices"][0]["delta"] for part in parts[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "One and one."
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "One and one."
    assert "".join(delta.get("content", "") for delta in deltas) == "Two."
    assert sum("reasoning" in delta for delta in deltas) > 2
    assert parts[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == len("One and one.")


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_can_be_left_out(client: httpx.AsyncClient, stream: bool) -> None:
    reply = await ask(client, include_reasoning=False, stream=stream)
    assert "think" not in reply.text and ("Two." in reply.text or stream)
    assert "reasoning_content" not in reply.text


async def test_begun_by_the_template(engine: SpokenEngine) -> None:
    engine.tokenizer = TemplateTokenizer(THINKING, "<think>\n")
    engine.says = ["One and one.\n</think>\n\nTwo."]
    async with client_of(engine) as client:
        message = (await ask(client)).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("One and one.", "Two.")


async def test_not_from_what_a_user_writes(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    engine.says = ["Plain."]
    message = (await ask(client, messages=[{"role": "user", "content": "say <think>"}])).json()["choices"][0][
        "message"
    ]
    assert message["content"] == "Plain." and "reasoning" not in message


async def test_with_a_call(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    engine.says = ['<think>Hm.</think><tool_call>{"name": "now"}</tool_call>']
    tools = [{"type": "function", "function": {"name": "now"}}]
    message = (await ask(client, tools=tools)).json()["choices"][0]["message"]
    assert message["reasoning"] == "Hm." and message["tool_calls"][0]["function"]["name"] == "now"


async def test_there_is_no_more_reasoning_than_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reasoning is counted from its text, of which the tokenizer may make more tokens than the model did."""
    use_markup(monkeypatch)
    async with client_of(ScriptedEngine(fake_config(), script="<think>Hmmmmm.</think>", piece=8)) as client:
        usage = (await ask(client)).json()["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]


async def test_effort_reaches_the_template(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    for effort, thinks in (("low", False), ("none", False), ("high", True)):
        await ask(client, reasoning_effort=effort)
        kwargs = engine.tokenizer.rendered[-1]["template_kwargs"]
        assert kwargs == {"reasoning_effort": effort, "enable_thinking": thinks}
    await ask(client, reasoning_effort="low", chat_template_kwargs={"enable_thinking": True})
    assert engine.tokenizer.rendered[-1]["template_kwargs"]["enable_thinking"] is True


async def test_effort_of_templates_that_know_it(engine: SpokenEngine) -> None:
    engine.tokenizer = TemplateTokenizer("{{ reasoning_effort }}{% if enable_thinking %}")
    async with client_of(engine) as client:
        await ask(client, reasoning_effort="low")
    assert engine.tokenizer.rendered[-1]["template_kwargs"] == {"reasoning_effort": "low"}


async def test_a_schema_begins_behind_the_reasoning(engine: SpokenEngine) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    engine.tokenizer = TemplateTokenizer(THINKING)
    async with client_of(engine) as client:
        (await ask(client, response_format=schema)).raise_for_status()
    form = engine.seen[-1][1].structured_outputs
    assert form is not None and form.structural_tag["format"]["type"] == "or"  # type: ignore[index]
    engine.tokenizer = TemplateTokenizer(THINKING, "<think>\n\n</think>\n\n")
    async with client_of(engine) as client:
        (await ask(client, response_format=schema)).raise_for_status()
    form = engine.seen[-1][1].structured_outputs
    assert form is not None and form.json == {"type": "object"}


async def test_thinking_budget(client: httpx.AsyncClient, engine: SpokenEngine) -> None:
    (await ask(client, thinking_token_budget=5)).raise_for_status()
    budget = engine.seen[-1][1].thinking_budget
    assert budget is not None and budget.budget == 5 and not budget.is_open
    assert bytes(budget.start_token_ids) == b"<think>" and bytes(budget.end_token_ids) == b"</think>"
    assert (await ask(client, thinking_token_budget=-1)).status_code == 400
    engine.tokenizer = TemplateTokenizer("{{ messages }}")
    async with client_of(engine) as other:
        refused = await ask(other, thinking_token_budget=5)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "thinking_token_budget"


async def test_named_parser(engine: SpokenEngine) -> None:
    engine.config = fake_config(reasoning_parser="none")
    async with client_of(engine) as client:
        message = (await ask(client)).json()["choices"][0]["message"]
    assert message["content"] == THOUGHT and "reasoning" not in message


@pytest.mark.parametrize(
    ("begun", "thought"),
    [
        ("<think>One", " and one."),
        ([{"type": "text", "text": "<think>One"}], " and one."),
        ("<think>\n", "and one."),
    ],
)
async def test_continued_reasoning(
    client: httpx.AsyncClient, engine: SpokenEngine, begun: object, thought: str
) -> None:
    """What goes on with a thought keeps the space between the two."""
    engine.says = [" and one.</think>Two."]
    messages = [*HELLO, {"role": "assistant", "content": begun}]
    reply = await ask(client, messages=messages, continue_final_message=True, add_generation_prompt=False)
    message = reply.json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (thought, "Two.")
