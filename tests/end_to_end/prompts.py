"""Prompts of many kinds and lengths for comparisons on real models."""

from __future__ import annotations

SHARED = (
    "You are a careful assistant who answers briefly and gives one example where it helps. "
    "Never invent facts; when you do not know something, say so and suggest where to look. "
)

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child.",
    "def fibonacci(n):",
    "The quick brown fox",
    "List three prime numbers greater than 100.",
    "Translate to German: Good morning, how are you?",
    "Once upon a time, in a village by a river,",
    "2 + 2 =",
    "Why is the sky blue?",
    "import numpy as np\n\ndef softmax(x):\n",
    "The history of the Roman Empire began",
    "Name a good book about birds and say why it is good.",
    "Summarise: The meeting was moved from Monday to Thursday because the room was not free.",
    "SELECT name, COUNT(*) FROM",
    "Dear Sir or Madam,",
]


def comparison_prompts(count: int) -> list[str]:
    """Every second prompt begins with the shared text, so that prefix caching has something to find."""
    long_tail = " ".join(f"Item {number} weighs {number * 7 % 13} grams." for number in range(40))
    prompts = []
    for index in range(count):
        question = QUESTIONS[index % len(QUESTIONS)]
        prefix = SHARED * (1 + index % 3) if index % 2 else ""
        tail = f" {long_tail}" if index % 8 == 3 else ""
        variant = "" if index < len(QUESTIONS) else f" (variant {index})"
        prompts.append(f"{prefix}{question}{tail}{variant}")
    return prompts
