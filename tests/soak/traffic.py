"""What a server meets in a day: every front door, streams, forms, tools, templates, nonsense, bombs."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

NUM_TEXTS = 300
"""Different prompts of a kind. The tokenizers library keeps up to 10,000 words: that shall be over soon."""
CHAT = [{"role": "user", "content": "Tell me something."}]
PREFIX = "A long beginning that many requests share. " * 3
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
BOMB_TEMPLATE = "{% set a = 'ab ' * 300000 %}{% set l = [" + "a[1:]," * 2000 + "] %}"
BOMB_SCHEMA = {"allOf": [{"type": "string", "pattern": f".*{char}.*"} for char in "abcdefghijklmnop"]}


class Ask(NamedTuple):
    """One request: where, what, and which statuses are right."""

    path: str
    body: dict[str, Any] | bytes
    statuses: tuple[int, ...] = (200,)


Make = Callable[[Random], Ask]


def _completion(rng: Random) -> Ask:
    body = {
        "prompt": f"{PREFIX if rng.random() < 0.5 else ''}{rng.randrange(NUM_TEXTS)}",
        "max_tokens": rng.randrange(1, 40),
    }
    return Ask("/v1/completions", {**body, "stream": rng.random() < 0.5, "logprobs": rng.choice((None, 2))})


def _samples(rng: Random) -> Ask:
    return Ask("/v1/completions", {"prompt": ["a", PREFIX], "n": 2, "max_tokens": 8, "temperature": 1.0})


def _beams(rng: Random) -> Ask:
    return Ask(
        "/v1/completions",
        {"prompt": f"{rng.randrange(NUM_TEXTS)}", "use_beam_search": True, "n": 2, "max_tokens": 6},
    )


def _chat(rng: Random) -> Ask:
    return Ask("/v1/chat/completions", {"messages": CHAT, "max_tokens": 20, "stream": rng.random() < 0.7})


def _form(rng: Random) -> Ask:
    form = rng.choice(
        (
            {"structured_outputs": {"regex": f"[a-z]{{{rng.randrange(2, 9)}}}"}},
            {"structured_outputs": {"choice": ["yes", "no", str(rng.randrange(99))]}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER}}},
        )
    )
    return Ask("/v1/chat/completions", {"messages": CHAT, "max_tokens": 30, **form})


def _tools(rng: Random) -> Ask:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    choice = rng.choice(("auto", "required"))
    body = {"messages": CHAT, "max_tokens": 40, "tools": [tool], "tool_choice": choice}
    return Ask("/v1/chat/completions", {**body, "stream": rng.random() < 0.5}, (200, 400))


def _responses(rng: Random) -> Ask:
    return Ask("/v1/responses", {"input": "hello", "max_output_tokens": 12, "stream": rng.random() < 0.5})


def _messages(rng: Random) -> Ask:
    body = {"model": "tiny", "messages": CHAT, "max_tokens": 12}
    return Ask("/v1/messages", {**body, "stream": rng.random() < 0.5})


def _ollama(rng: Random) -> Ask:
    options = {"model": "tiny", "options": {"num_predict": 12}, "stream": rng.random() < 0.5}
    if rng.random() < 0.5:
        return Ask("/api/chat", {**options, "messages": CHAT})
    return Ask("/api/generate", {**options, "prompt": "hello"})


def _tgi(rng: Random) -> Ask:
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 12}}
    return Ask(rng.choice(("/generate", "/generate_stream")), body)


def _tokens(rng: Random) -> Ask:
    return rng.choice((Ask("/tokenize", {"prompt": PREFIX}), Ask("/detokenize", {"tokens": [1, 2, 3]})))


def _template(rng: Random) -> Ask:
    return Ask(
        "/v1/chat/completions",
        {"messages": CHAT, "max_tokens": 4, "chat_template": f"{rng.randrange(NUM_TEXTS)}"},
    )


def _nonsense(rng: Random) -> Ask:
    return rng.choice(
        (
            Ask("/v1/chat/completions", b"{", (400,)),
            Ask("/v1/chat/completions", {"messages": []}, (400,)),
            Ask("/v1/completions", {"prompt": "a", "temperature": -1}, (400,)),
            Ask("/v1/completions", {"prompt": "a" * 100_000}, (400,)),
            Ask("/v1/messages", {"model": "other", "messages": CHAT, "max_tokens": 1}, (404,)),
            Ask("/nowhere", {}, (404,)),
            Ask("/v1/embeddings", {"input": "a"}, (400, 404, 501)),
        )
    )


def _bomb(rng: Random) -> Ask:
    if rng.random() < 0.5:
        return Ask("/v1/chat/completions", {"messages": CHAT, "chat_template": BOMB_TEMPLATE}, (400,))
    form = {"structured_outputs": {"json": BOMB_SCHEMA}}
    return Ask("/v1/completions", {"prompt": "a", "max_tokens": 2, **form}, (400,))


KINDS: dict[str, tuple[float, Make]] = {
    "completion": (6, _completion),
    "samples": (2, _samples),
    "beams": (1, _beams),
    "chat": (6, _chat),
    "form": (3, _form),
    "tools": (2, _tools),
    "responses": (2, _responses),
    "messages": (2, _messages),
    "ollama": (2, _ollama),
    "tgi": (2, _tgi),
    "tokens": (1, _tokens),
    "template": (1, _template),
    "nonsense": (2, _nonsense),
    "bomb": (0.1, _bomb),
}
"""By name: how often, and how it is made."""


def ask(rng: Random) -> tuple[str, Ask]:
    """The next request, of some kind."""
    (name,) = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])
    return name, KINDS[name][1](rng)


def is_well_formed(path: str, body: bytes, is_streamed: bool) -> bool:
    """Whether the answer is what its protocol says: JSON, or a stream with its last event and no error."""
    if not is_streamed:
        return isinstance(json.loads(body), dict | list)
    text = body.decode()
    if path.startswith("/api/"):
        return bool(json.loads(text.splitlines()[-1]).get("done"))
    ends = {
        "/v1/messages": "message_stop",
        "/v1/responses": "response.",
        "/generate_stream": "generated_text",
    }
    return ends.get(path, "[DONE]") in text and '"error"' not in text.replace('"error":null', "")
