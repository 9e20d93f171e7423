"""`octavo explain` says how answers are read, and why; wrong names are refused before anything is loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from octavo.base.errors import ConfigError
from octavo.cli.answer_formats import answer_formats
from octavo.config.root import EngineConfig
from octavo.server.start import run_server
from octavo.tokens.source import TokenizerSource


def told(**options: Any) -> tuple[str, str, str, str]:
    checkpoint: Any = SimpleNamespace(tokenizer_source=lambda: TokenizerSource())
    found = answer_formats(checkpoint, EngineConfig.from_options(options))
    return found.tool_calls, found.tool_calls_reason, found.reasoning, found.reasoning_reason


def test_without_a_template() -> None:
    calls, why, reasoning, reasoning_why = told()
    assert (calls, reasoning) == ("none", "none") and "chat template" in why and "signs" in reasoning_why


def test_named() -> None:
    calls, why, reasoning, _ = told(tool_call_parser="pythonic", reasoning_parser="deepseek_r1")
    assert (calls, reasoning) == ("pythonic", "deepseek-r1") and why == "named by tool_call_parser"


@pytest.mark.parametrize("option", ["tool_call_parser", "reasoning_parser"])
def test_unknown_names(option: str) -> None:
    config = EngineConfig.from_options({option: "nope", "port": 0})
    with pytest.raises(ConfigError, match=f"no {option} 'nope'. Allowed: auto, none, "):
        run_server(config)
    with pytest.raises(ConfigError, match="nope"):
        told(**{option: "nope"})
