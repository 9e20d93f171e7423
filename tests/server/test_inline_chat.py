"""`octavo chat` with a model in its own process reads answers as the server does."""

from __future__ import annotations

from typing import Any

import pytest
from server_fakes import fake_config
from spoken_engine import THINKING, SpokenEngine, TemplateTokenizer

from octavo.cli.main import main
from octavo.engine.async_llm import AsyncLLM

ONE_THOUGHT = "<think>\nOne and one.\n</think>\n\nTwo."


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SpokenEngine:
    engine = SpokenEngine(fake_config(), tokenizer=TemplateTokenizer(THINKING), says=[ONE_THOUGHT])

    async def start(*_: Any, **__: Any) -> SpokenEngine:
        return engine

    monkeypatch.setattr(AsyncLLM, "start", start)
    return engine


def test_thinking_and_answer_are_told_apart(engine: SpokenEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "fake", "-q", "1+1?", "--temperature", "0.5", "--stop", "never"]) == 0
    said = capsys.readouterr()
    assert said.out == "Two.\n"
    assert said.err == "Loading fake ...\nOne and one.\n\n"
    ((_, params, _),) = engine.seen
    assert params.temperature == 0.5 and params.stop == ["never"]


def test_thinking_can_be_hidden(engine: SpokenEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "fake", "-q", "1+1?", "--no-show-reasoning"]) == 0
    said = capsys.readouterr()
    assert said.out == "Two.\n" and "One" not in said.err
