"""Rows of our own: the same bad value through every front door gets the same refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.attacks.arena import CONTEXT, Arena
from tests.attacks.row import Attack, Row
from tests.attacks.send import JSON, Refusal

TEXT = {"role": "user", "content": "x"}


@dataclass(frozen=True)
class Door:
    """A front door: its path, a body, where sampling values stand in it, the status of what is wrong."""

    path: str
    body: dict[str, Any]
    inside: str | None = None
    max_tokens: str = "max_tokens"
    names: frozenset[str] = frozenset({"temperature", "top_p"})
    status: int = 400

    def with_value(self, name: str, value: Any) -> dict[str, Any]:
        if self.inside is None:
            return {**self.body, name: value}
        return {**self.body, self.inside: {**self.body.get(self.inside, {}), name: value}}


ALL = frozenset({"temperature", "top_p", "top_k", "seed", "frequency_penalty", "repetition_penalty", "stop"})
DOORS = (
    Door("/v1/completions", {"prompt": "x", "max_tokens": 4}, names=ALL),
    Door("/v1/chat/completions", {"messages": [TEXT], "max_tokens": 4}, names=ALL),
    Door("/invocations", {"prompt": "x", "max_tokens": 4}, names=ALL),
    Door("/v1/responses", {"input": "x", "max_output_tokens": 16}, max_tokens="max_output_tokens"),
    Door(
        "/v1/messages",
        {"model": "tiny", "messages": [TEXT], "max_tokens": 4},
        names=frozenset({"temperature", "top_p", "top_k"}),
    ),
    Door(
        "/api/generate",
        {"model": "tiny", "prompt": "x", "options": {"num_predict": 4}},
        inside="options",
        max_tokens="num_predict",
        names=ALL - {"repetition_penalty"},
    ),
    Door(
        "/api/chat",
        {"model": "tiny", "messages": [TEXT], "options": {"num_predict": 4}},
        inside="options",
        max_tokens="num_predict",
        names=ALL - {"repetition_penalty"},
    ),
    Door(
        "/generate",
        {"inputs": "x", "parameters": {"max_new_tokens": 4}},
        inside="parameters",
        max_tokens="max_new_tokens",
        names=ALL,
        status=422,
    ),
)
WRONG: dict[str, tuple[Any, ...]] = {
    "temperature": (-0.1, 1e9, "0.5", True, [1]),
    "top_p": (-0.5, 1.5, "1"),
    "top_k": (-2, 1.5, "5", 2**70),
    "seed": (2**64, 1.5, "7", -(2**64)),
    "frequency_penalty": (-2.1, 5, "x"),
    "repetition_penalty": (-1, 1e9, "x"),
    "stop": (5, [5], ["x"] * 1000, ["s" * 5000]),
}
NOT_FINITE = (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 5000)


def through_all(of: Callable[[Door], list[tuple[str, bytes]]]) -> Attack:
    """Send through each door what `of` makes of it: each is refused, in the words of its protocol."""

    def attack(arena: Arena) -> None:
        problems = []
        with arena.client() as client:
            for door in DOORS:
                for name, body in of(door):
                    reply = client.post(door.path, content=body, headers=JSON)
                    try:
                        Refusal(door.status).check(reply)
                    except AssertionError as error:
                        problems.append(f"{door.path} {name}: {str(error)[:200]}")
        assert not problems, "; ".join(problems)

    return attack


def values(parameter: str) -> Attack:
    return through_all(
        lambda door: [
            (f"{parameter} {str(value)[:20]}", json.dumps(door.with_value(parameter, value)).encode())
            for value in (WRONG[parameter] if parameter in door.names else ())
        ]
    )


def not_finite(door: Door) -> list[tuple[str, bytes]]:
    marked = json.dumps(door.with_value("temperature", "MARK")).encode()
    return [(value.decode()[:20], marked.replace(b'"MARK"', value)) for value in NOT_FINITE]


def lengths(door: Door) -> list[tuple[str, bytes]]:
    """/v1/messages takes any: there it is an upper bound (see docs/features/anthropic.md)."""
    name, wrong = door.max_tokens, (1.5, "4")
    too_many = () if door.path == "/v1/messages" else (CONTEXT * 2, 10**12, 2**70)
    return [
        (f"{name} {value}", json.dumps(door.with_value(name, value)).encode()) for value in wrong + too_many
    ]


def malformed(door: Door) -> list[tuple[str, bytes]]:
    whole = json.dumps(door.body).encode()
    deep = b'{"metadata": ' + b"[" * 40_000
    return [
        ("cut", whole[:-1]),
        ("empty", b""),
        ("a list", b"[%b]" % whole),
        ("two", whole + whole),
        ("not UTF-8", whole.replace(b'"x"', b'"\xff"')),
        ("a lone surrogate", whole.replace(b'"x"', b'"\\ud800"')),
        ("deep", deep),
        ("deep and whole", b'{"metadata": ' + b"[" * 1000 + b"]" * 1000 + b"}"),
    ]


def long_text(arena: Arena) -> None:
    """A text of megabytes in place of each door's short one."""
    through_all(
        lambda door: [
            ("long text", json.dumps(door.body).replace('"x"', json.dumps("word " * 300_000)).encode())
        ]
    )(arena)


def row(id: str, name: str, attack: Attack, **more: Any) -> Row:
    return Row(id=id, name=name, expected="the same refusal at each door", attack=attack, **more)


ROWS: tuple[Row, ...] = (
    *(row("D01", f"{name} that is none, through every door", values(name)) for name in WRONG),
    row("D02", "numbers that are not finite, through every door", through_all(not_finite)),
    row("D03", "max_tokens that is none, through every door", through_all(lengths)),
    row("D04", "bodies that are no JSON, through every door", through_all(malformed)),
    row("D05", "1.5 MB of text, through every door", long_text, with_victim=True, stall_ms=100),
)
