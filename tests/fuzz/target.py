"""Target: one door of Octavo through which bytes of strangers come, and what may never happen behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

Run = Callable[[bytes], None]
"""Takes one input. A typed refusal is no failure and does not leave it; any exception is."""

Mutate = Callable[[bytes, Random], bytes]
"""An input like the given one."""


@dataclass(frozen=True, kw_only=True)
class Target:
    open: Callable[[Path], Run]
    """Given a folder for its files. Called once in a process."""
    seeds: Callable[[], Iterable[bytes]]
    """Honest inputs to begin with, beside those in the corpus."""
    mutate: Mutate
    max_bytes: int = 16 * 1024
    input_s: float = 5.0
    """Of the processor's time. One input that takes longer is a failure."""
    memory_bytes: int = 1 << 30
    """What inputs may take beyond what the process has when it begins."""


NAMES = (
    "answers",
    "anthropic",
    "batch_lines",
    "chat_messages",
    "chat_template",
    "forms",
    "gguf",
    "gguf_native",
    "grammar_lark",
    "grammar_regex",
    "grammar_schema",
    "model_folder",
    "ollama",
    "openai",
    "pooling",
    "reasoning_parsers",
    "safetensors",
    "sse",
    "structural_tag",
    "tgi",
    "tokenizer_files",
    "tokenizer_gguf",
    "tool_parsers",
    "wire",
)


def find(name: str) -> Target:
    """The target of one of the NAMES."""
    target = import_module(f"tests.fuzz.targets.{name}").TARGET
    assert isinstance(target, Target), name
    return target


CORPUS = Path(__file__).parent / "corpus"


def inputs_of(name: str, target: Target) -> list[bytes]:
    """Seeds, and what was found worth keeping."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]
    return [*target.seeds(), *kept]
