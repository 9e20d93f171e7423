"""Rows 2.4: chat templates of requests and of models."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import Any

from tests.attacks.arena import Arena
from tests.attacks.own_server import SERVE
from tests.attacks.row import Attack, Row, case
from tests.attacks.send import CHAT, PLAIN_CHAT, Refusal, each, refused_or_done

HOSTILE = {
    "an endless loop": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(10**9) %}x{% endfor %}",
    "a huge text": "{{ 'x' * 10**9 }}",
    "a huge number": "{{ 10 ** 10 ** 10 }}",
    "a doubling text": (
        "{% set ns = namespace(t='x') %}{% for a in range(64) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"
        "{{ ns.t }}"
    ),
    "a walk to globals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a walk through a function": "{{ raise_exception.__globals__ }}",
    "a walk by filter": "{{ messages | attr('__class__') }}",
    "a walk by format": "{{ '{0.__class__}'.format(messages) }}",
    "an include": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}{{ os }}",
    "a macro that calls itself": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "6,000 deep": "{% if 1 %}" * 6_000 + "x" + "{% endif %}" * 6_000,
    "parentheses": "{{ " + "(" * 6_000 + "1" + ")" * 6_000 + " }}",
    "no template": "{% if %}",
    "padding": "{{ '%999999999d' % 1 }}",
    "joined ranges": "{{ range(100000) | join('x' * 100000) }}",
}


def switched_off(arena: Arena) -> None:
    each(
        CHAT,
        PLAIN_CHAT,
        Refusal(400, "unsupported_value", "chat_template"),
        {name: {"chat_template": text} for name, text in HOSTILE.items()},
    )(arena)


def hostile_kwargs() -> dict[str, dict[str, Any]]:
    wishes = {
        "tokenize": True,
        "return_tensors": "pt",
        "chat_template": "x",
        "return_dict": True,
        "messages": [],
        "tools": [],
        "documents": [],
        "conversation": [],
        "continue_final_message": True,
        "raise_exception": 1,
        "range": 1,
        "namespace": 1,
        "add_generation_prompt": "yes",
        "self": 1,
        "__class__": 1,
    }
    return {name: {"chat_template_kwargs": {name: value}} for name, value in wishes.items()}


def refused_at_start(*names: str) -> Attack:
    """A model's own template that cannot be read: the server says so and does not start."""

    def attack(arena: Arena) -> None:
        for name in names:
            file = arena.log.parent / "hostile.jinja"
            file.write_text(HOSTILE[name])
            command = [
                *SERVE,
                str(arena.model),
                "--port",
                "0",
                "--chat-template",
                str(file),
            ]
            done = subprocess.run(command, capture_output=True, timeout=120, text=True)
            text = done.stdout + done.stderr
            assert done.returncode != 0 and "template" in text and "Traceback" not in text, (
                name,
                text[-500:],
            )

    return attack


row = partial(case, budget_ms=15_000, with_victim=True)
ROWS: tuple[Row, ...] = (
    row("G13", "templates from requests", switched_off, "400: switched off"),
    row(
        "G14",
        "template settings that mean our own",
        each(CHAT, PLAIN_CHAT, Refusal(400), hostile_kwargs()),
        "400",
    ),
    row(
        "G15",
        "a model's template that is none",
        refused_at_start("6,000 deep", "parentheses"),
        "the server says so and does not start",
        with_victim=False,
        only_full=True,
        budget_ms=40_000,
    ),
)

TEMPLATE_ROWS: tuple[Row, ...] = (
    row(
        "G13",
        "hostile templates, switched on",
        refused_or_done({name: {"chat_template": text} for name, text in HOSTILE.items()}, must_refuse=True),
        "400, stopped by time and size",
        budget_ms=40_000,
    ),
    row(
        "G15",
        "templates as hostile as a model's own could be",
        refused_or_done(
            {name: {"chat_template": HOSTILE[name]} for name in ("an endless loop", "a walk to globals")},
            must_refuse=True,
        ),
        "400 for the request: such templates are found out when they run",
    ),
)
