"""Reasoning is told from the answer."""

from __future__ import annotations

import pytest
from parsing_samples import read

from octavo.server.parsing.reasoning import (
    REASONING_ALIASES,
    REASONING_FORMATS,
    is_left_open,
    starts_in_reasoning,
)

ANSWERS = {
    "think": "<think>\nHm.\n</think>\n\nYes.",
    "deepseek-r1": "<think>\nHm.\n</think>\n\nYes.",
    "granite-think": "<think>Hm.</think><response>Yes.</response>",
    "granite": "Here is my thought process:\nHm.\nHere is my response:\nYes.",
    "seed-oss": "<seed:think>Hm.</seed:think>Yes.",
    "magistral": "[THINK]Hm.[/THINK]Yes.",
    "gemma4": "<|channel>thought\nHm.\n<channel|>Yes.",
    "cohere": "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
    "gpt-oss": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
}


@pytest.mark.parametrize("size", [0, 1, 4])
@pytest.mark.parametrize("name", REASONING_FORMATS)
def test_reasoning_is_told_from_content(name: str, size: int) -> None:
    assert read(None, ANSWERS[name], name, size) == [("reasoning", "Hm."), ("content", "Yes.")]


def test_begun_in_the_prompt() -> None:
    assert read(None, "Hm.</think>Yes.", "think", 1, is_open=True) == [
        ("reasoning", "Hm."),
        ("content", "Yes."),
    ]
    assert read(None, "Hm.", "think", 1, is_open=True) == [("reasoning", "Hm.")]
    assert read(None, "</think>Yes.", "think", 1, is_open=True) == [("content", "Yes.")]
    assert read(None, "\n\n</think>\n\nYes.", "think", 1, is_open=True) == [("content", "Yes.")]


def test_without_reasoning() -> None:
    assert read(None, "Yes. 1 < 2", "think", 1) == [("content", "Yes. 1 < 2")]
    assert read(None, "a </think> b", "think", 1) == [("content", "a </think> b")]


@pytest.mark.parametrize("size", [0, 1, 4])
def test_an_answer_may_speak_of_markers(size: int) -> None:
    """It thinks before it answers, so markers behind text are text."""
    text = "Write `<think>` first, then `</think>`, then the answer."
    assert read(None, text, "think", size) == [("content", text)]
    assert read(None, "<think>Hm.</think>\n\n" + text, "think", size) == [
        ("reasoning", "Hm."),
        ("content", text),
    ]
    assert read(None, "Sure. Here is my thought process: I", "granite", size) == [
        ("content", "Sure. Here is my thought process: I")
    ]
    assert read(None, "Well. [THINK]Hm.[/THINK]Yes.", "magistral", size) == [
        ("content", "Well."),
        ("reasoning", "Hm."),
        ("content", "Yes."),
    ]


def test_thinking_between_calls() -> None:
    text = 'I look.<tool_call>{"name": "now"}</tool_call><think>Hm.</think>Yes.'
    assert read("hermes", text, "think", 1) == [
        ("content", "I look."), ("call", "now"), ("arguments", "{}"), ("end", True),
        ("reasoning", "Hm."), ("content", "Yes."),
    ]  # fmt: skip


def test_the_prompts_end_decides() -> None:
    think, r1 = REASONING_FORMATS["think"], REASONING_FORMATS["deepseek-r1"]
    assert starts_in_reasoning(think, "<|im_start|>assistant\n<think>\n")
    assert not starts_in_reasoning(think, "<|im_start|>assistant\n")
    assert not starts_in_reasoning(think, "say <think> please<|im_end|>\n<|im_start|>assistant\n")
    assert not starts_in_reasoning(think, "<think>\n\n</think>\n\n")
    assert starts_in_reasoning(r1, "<|im_start|>assistant\n")
    assert not starts_in_reasoning(r1, "<think>\n\n</think>\n\n")


def test_a_continued_message() -> None:
    think = REASONING_FORMATS["think"]
    assert is_left_open(think, "<think>So far")
    assert not is_left_open(think, "<think>Done</think>Now")
    assert not is_left_open(think, "Plain")


def test_aliases_lead_somewhere() -> None:
    assert set(REASONING_ALIASES.values()) <= REASONING_FORMATS.keys()
