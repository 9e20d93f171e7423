"""The official client and the Responses API over a real port."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from scripted_engine import ScriptedEngine, use_markup
from server_fakes import FakeEngine, answer_text, fake_config
from server_live import LiveServer, until
from test_server_life import ServerProcess

HELLO_IDS = [*b"[user]hello[assistant]"]


class Point(pydantic.BaseModel):
    x: int
    y: int


@pytest.fixture
def api(live: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[openai.OpenAI, ScriptedEngine]]:
    use_markup(monkeypatch)
    engine = ScriptedEngine(fake_config())
    server = LiveServer(engine)
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client, engine
    server.stop()


def test_create_and_retrieve(api: openai.OpenAI) -> None:
    made = api.responses.create(model="fake", input="hello", max_output_tokens=3, metadata={"a": "b"})
    assert made.output_text == answer_text(HELLO_IDS, 0, 3) and made.metadata == {"a": "b"}
    assert api.responses.retrieve(made.id) == made
    api.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve(made.id)


def test_the_stream_helper(scripted: tuple[openai.OpenAI, ScriptedEngine]) -> None:
    api, engine = scripted
    engine.script = '<think>hm</think>say this<call f>{"x": 1}</call>'
    with api.responses.stream(model="fake", input="hello") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert {"response.output_text.delta", "response.function_call_arguments.done"} <= kinds
    assert final.output_text == "say this"
    thought, _, call = final.output
    assert thought.type == "reasoning" and thought.content is not None and thought.content[0].text == "hm"
    assert call.type == "function_call" and call.arguments == '{"x": 1}'


def test_output_goes_back_in_as_it_came(scripted: tuple[openai.OpenAI, ScriptedEngine]) -> None:
    api, engine = scripted
    engine.script = '<think>hm</think>say<call f>{"x": 1}</call>'
    made = api.responses.create(model="fake", input="hello", store=False)
    call = made.output[2]
    assert call.type == "function_call"
    history: list[Any] = [{"role": "user", "content": "hello"}, *made.output]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "1"})
    api.responses.create(model="fake", input=history, store=False)
    roles = [message["role"] for message in engine.tokenizer.rendered[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]


def test_parse(scripted: tuple[openai.OpenAI, ScriptedEngine]) -> None:
    api, engine = scripted
    engine.script = '{"x": 1, "y": 2}'
    parsed = api.responses.parse(model="fake", input="hello", text_format=Point)
    assert parsed.output_parsed == Point(x=1, y=2)
    with api.responses.stream(model="fake", input="hello", text_format=Point) as stream:
        assert stream.get_final_response().output_parsed == Point(x=1, y=2)
    assert parsed.text is not None and parsed.text.format is not None
    assert parsed.text.format.type == "json_schema" and parsed.text.format.name == "Point"


def test_input_items_over_pages(api: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": str(number)} for number in range(5)]
    made = api.responses.create(model="fake", input=items, max_output_tokens=1)
    listed = list(api.responses.input_items.list(made.id, limit=2, order="asc"))
    assert [item.content[0].text for item in listed] == ["0", "1", "2", "3", "4"]  # type: ignore[union-attr]
    newest = api.responses.input_items.list(made.id, limit=2)
    assert newest.data[0].id == listed[-1].id and newest.has_more  # type: ignore[union-attr]


def test_background(api: openai.OpenAI, engine: FakeEngine) -> None:
    engine.delay_s = 0.005
    begun = api.responses.create(model="fake", input="hello", background=True, max_output_tokens=5)
    assert begun.status == "queued"
    text = ""
    for event in api.responses.retrieve(begun.id, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    assert text == answer_text(HELLO_IDS, 0, 5) and last.type == "response.incomplete"
    resumed = list(api.responses.retrieve(begun.id, stream=True, starting_after=last.sequence_number - 2))
    assert [event.sequence_number for event in resumed] == [last.sequence_number - 1, last.sequence_number]
    engine.stall_at = 1
    stuck = api.responses.create(model="fake", input="hello", background=True)
    assert api.responses.cancel(stuck.id).status == "cancelled"
    assert engine.num_open == 0


def test_closing_a_stream_aborts_and_keeps_nothing(api: openai.OpenAI, engine: FakeEngine) -> None:
    engine.stall_at = 2
    stream = api.responses.create(model="fake", input="x", stream=True)
    first = next(iter(stream))
    next(event for event in stream if event.type == "response.output_text.delta")
    stream.close()
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 1 and first.type == "response.created"
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve(first.response.id)


def test_a_background_stream_goes_on_when_its_client_leaves(api: openai.OpenAI, engine: FakeEngine) -> None:
    engine.delay_s = 0.02
    stream = api.responses.create(model="fake", input="x", stream=True, background=True)
    first = next(iter(stream))
    stream.close()
    assert first.type == "response.created"
    until(lambda: api.responses.retrieve(first.response.id).status == "incomplete")
    assert engine.num_aborted == 0


def test_errors_arrive_as_the_clients_classes(api: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        api.responses.create(model="fake", input="x", tools=[{"type": "web_search"}])
    assert bad.value.param == "tools[0].type" and bad.value.code == "unsupported_value"
    with pytest.raises(openai.NotFoundError):
        api.responses.create(model="fake", input="x", previous_response_id="resp_1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_responses_survive_a_restart(number: signal.Signals, tmp_path: Path) -> None:
    wishes = {"config": {"response_store": str(tmp_path / "r.db")}}
    with running(wishes) as (server, api):
        made = api.responses.create(model="fake", input="hello", max_output_tokens=3)
        server.signal(number)
        server.exit_status()
    with running(wishes) as (_, api):
        assert api.responses.retrieve(made.id) == made
        again = api.responses.create(model="fake", input="more", previous_response_id=made.id)
        assert len(list(api.responses.input_items.list(again.id))) == 3


class running:
    """A server process and a client of it."""

    def __init__(self, wishes: dict[str, Any]) -> None:
        self._server = ServerProcess(wishes)
        self._server.wait_ready()

    def __enter__(self) -> tuple[ServerProcess, openai.OpenAI]:
        return self._server, openai.OpenAI(base_url=self._server.url + "/v1", api_key="none", max_retries=0)

    def __exit__(self, *_: object) -> None:
        self._server.process.kill()
        self._server.process.communicate()
