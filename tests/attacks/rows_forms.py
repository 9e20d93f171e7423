"""Rows 2.4: forms of answers, tools, templates."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.machine import AnswerReader, Machine
from octavo.server.parsing.output import Output
from tests.attacks.after import slowness
from tests.attacks.arena import Arena
from tests.attacks.row import Attack, Row
from tests.attacks.send import CHAT, JSON, PLAIN_CHAT, Refusal, each

FORM_S = 2.0
"""One form, from request to answer, says the list."""
BAD = Refusal(400)


def form(**fields: Any) -> dict[str, Any]:
    return {"structured_outputs": fields}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def properties(**values: Any) -> dict[str, Any]:
    return schema({"type": "object", "properties": values})


def refused_or_done(cases: dict[str, dict[str, Any]], *, must_refuse: bool = False) -> Attack:
    """Each in FORM_S: 400 in our words, or an answer that has ended."""

    def attack(arena: Arena) -> None:
        problems = []
        bodies = {name: json.dumps({**PLAIN_CHAT, **fields}).encode() for name, fields in cases.items()}
        with arena.client() as client:
            for name, body in bodies.items():
                began = time.monotonic()
                reply = client.post(CHAT, content=body, headers=JSON)
                seconds = time.monotonic() - began
                try:
                    if must_refuse or reply.status_code != 200:
                        Refusal((400, 413)).check(reply)
                    else:
                        assert reply.json()["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")
                    assert seconds < FORM_S * slowness(), f"{seconds:.1f} s"
                except AssertionError as error:
                    problems.append(f"{name}: {str(error)[:300]}")
        assert not problems, "; ".join(problems)

    return attack


REGEXES = {
    "nested stars": r"(a+)+b",
    "stars of anything": r"(.*)*x",
    "100,000 times": r"a{1,100000}",
    "a billion times": r"(a{1,1000}){1,1000}{1,1000}",
    "alternatives of the same": r"(a|a)*",
    "a long range": r"[\s\S]{0,65535}",
    "lookahead": r"a(?=b)",
    "lookbehind": r"(?<=a)b",
    "backreference": r"(a)\1",
    "1 MB": "a?" * 500_000,
    "deep": "(" * 30_000 + ")" * 30_000,
    "unclosed": "(a",
    "a lone star": "*",
    "surrogates": "[\ud7ff-\uffff]{1000}",
    "a class of all": r"[^\x00-\uffff]",
}
MUST_REFUSE = ("lookahead", "lookbehind", "backreference", "unclosed", "a lone star", "deep")
SCHEMAS = {
    "10,000 properties": {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(10_000)},
    },
    "oneOf of 500": {
        "oneOf": [
            {"type": "object", "properties": {f"p{i}": {"const": i}}, "required": [f"p{i}"]}
            for i in range(500)
        ]
    },
    "anyOf of 5,000": {"anyOf": [{"const": f"value {i}"} for i in range(5_000)]},
    "a billion items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "a billion characters": {"type": "string", "minLength": 10**9},
    "a pattern that explodes": {"type": "string", "pattern": "^(a+)+b{1,9999}$"},
    "multipleOf of next to nothing": {"type": "number", "multipleOf": 1e-300},
    "references in a circle": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "a reference to elsewhere": {"$ref": "http://127.0.0.1:1/schema.json"},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "references that double": {
        "$defs": {
            f"d{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)
        }
        | {"d30": {"type": "null"}},
        "$ref": "#/$defs/d0",
    },
}
WRONG_SCHEMAS = {
    "type 5": {"type": 5},
    "type unknown": {"type": "poem"},
    "required no list": {"type": "object", "required": "x"},
    "properties a list": {"type": "object", "properties": []},
    "property no schema": {"type": "object", "properties": {"x": 5}},
    "enum no list": {"enum": 5},
    "enum empty": {"enum": []},
    "a minimum over the maximum": {"type": "integer", "minimum": 5, "maximum": 4},
    "items a string": {"type": "array", "items": "x"},
    "minItems -1": {"type": "array", "minItems": -1},
    "pattern 5": {"type": "string", "pattern": 5},
    "a lost reference": {"$ref": "#/$defs/none"},
    "false": False,
    "a list": [],
    "a string": "{",
    "a number": 5,
}
UNSUPPORTED = {
    "not": {"type": "object", "properties": {"place": {"not": {"type": "string"}}}},
    "if": {"type": "object", "properties": {"place": {"if": {"type": "string"}, "then": {"minLength": 1}}}},
    "unevaluatedProperties": {"type": "object", "properties": {"place": {"unevaluatedProperties": False}}},
    "uniqueItems": {"type": "object", "properties": {"place": {"type": "array", "uniqueItems": True}}},
    "contains": {"type": "object", "properties": {"place": {"type": "array", "contains": {"const": 1}}}},
}
GRAMMARS = {
    "left recursion": 'root ::= root "a" | "a"',
    "hidden left recursion": 'root ::= x root "a" | "a"\nx ::= ""',
    "30,000 parentheses": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000,
    "a rule that is not there": "root ::= nothing",
    "empty alternatives": 'root ::= "a" | | "b"',
    "empty rules in a circle": 'root ::= a\na ::= b\nb ::= a | ""',
    "no rule at all": "",
    "no root": 'x ::= "a"',
    "not a grammar": "hello, world",
    "100,000 rules": "\n".join(f'r{i} ::= "a"' for i in range(100_000)) + "\nroot ::= r0",
    "unclosed": 'root ::= "a',
    "itself only": "root ::= root",
}
ENDLESS = {
    "a grammar without an end": form(grammar='root ::= "a" root'),
    "digits for ever": form(regex="[0-9]{400,500}"),
}


def named_place(arena: Arena) -> None:
    """What a schema asks for and we cannot do is refused with the keyword and its place, or it is done."""
    with arena.client() as client:
        for keyword, value in UNSUPPORTED.items():
            reply = client.post(CHAT, json={**PLAIN_CHAT, **schema(value)})
            assert reply.status_code == 400, f"{keyword}: {reply.status_code}"
            error = reply.json()["error"]
            text = f"{error['message']} {error['param']}"
            assert keyword in text and "place" in text, f"{keyword}: {text}"


def cut_answers(arena: Arena) -> None:
    """A form that does not come to its end within max_tokens: the answer says that it was cut."""
    with arena.client() as client:
        for name, fields in ENDLESS.items():
            reply = client.post(CHAT, json={**PLAIN_CHAT, "max_tokens": 20, **fields})
            assert reply.status_code == 400 or reply.json()["choices"][0]["finish_reason"] == "length", (
                name,
                reply.text,
            )


def tool(name: Any = "f", description: str = "", parameters: Any = None) -> dict[str, Any]:
    function = {"name": name, "description": description}
    return {
        "type": "function",
        "function": function if parameters is None else {**function, "parameters": parameters},
    }


def tools(*all_tools: Any, choice: Any = "required") -> dict[str, Any]:
    return {"tools": list(all_tools), "tool_choice": choice}


LARGE = {
    "type": "object",
    "properties": {f"p{i}": {"type": "string", "description": "x" * 50} for i in range(2_000)},
}
EXPLODING = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(a+)+b{1,9999}"}}}
TOOLS = {
    "1,000 tools": tools(*(tool(f"f{i}") for i in range(1_000))),
    "descriptions of 1 MB": tools(tool(description="x" * 2**20)),
    "names twice": tools(tool(), tool()),
    "a quote in a name": tools(tool('f"x')),
    "a line break in a name": tools(tool("f\nx")),
    "regex in a name": tools(tool("f.*(")),
    "a long name": tools(tool("f" * 10_000)),
    "an empty name": tools(tool("")),
    "a number for a name": tools(tool(5)),
    "parameters of 200 kB": tools(tool(parameters=LARGE)),
    "parameters that are none": tools(tool(parameters=5)),
    "a pattern that explodes": tools(tool(parameters=EXPLODING)),
    "a type that is none": tools(tool(parameters={"type": 5})),
    "no function": tools({"type": "function"}),
    "no list": {"tools": {"a": 1}},
}


def texts(size: int) -> dict[str, str]:
    """What a model may be made to write, of about this many characters."""
    return {
        "openings": "<tool_call>" * (size // 11),
        "an unclosed call": '<tool_call>{"name": "f", "arguments": {"x": "' + "y" * size,
        "nested quotes": '<tool_call>{"name": "f", "arguments": {"x": "' + '\\"' * (size // 2),
        "nested brackets": '<tool_call>{"name": "f", "arguments": ' + "[" * size,
        "closings first": "</tool_call>" * (size // 12),
        "angle brackets": "<" * size,
        "nearly an opening": "<tool_cal" * (size // 9),
        "names behind calls": '<tool_call>{"arguments": {"a": ' + "1" * size + '}, "name": "f"}</tool_call>',
        "calls": '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * (size // 54),
    }


def parsing_s(name: str, text: str) -> float:
    """Seconds of this thread to read a text in pieces of four characters, the best of two."""
    best = float("inf")
    for _ in range(2):
        output = Output(make_id=lambda: "id", schemas={"f": {"type": "object"}}, max_calls=None)
        machine = Machine(AnswerReader(TOOL_FORMATS[name], None, starts_in_reasoning=False), output)
        began = time.thread_time()
        for start in range(0, len(text), 4):
            machine.feed(text[start : start + 4])
        machine.finish()
        best = min(best, time.thread_time() - began)
    return best


def linear_parsers(arena: Arena) -> None:
    """Twice as much takes twice as long (at most 2.6 times, and what takes no time is not compared)."""
    size = arena.many(20_000, 5_000)
    slow = []
    for name in TOOL_FORMATS:
        for what, text in texts(size).items():
            once, twice = parsing_s(name, text), parsing_s(name, texts(2 * size)[what])
            if twice > 0.05 and twice > 2.6 * once:
                slow.append(f"{name}, {what}: {once:.3f} s, then {twice:.3f} s")
    assert not slow, "; ".join(slow)


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
                sys.executable,
                "-m",
                "octavo.cli.main",
                "serve",
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


def back_ends(arena: Arena) -> None:
    cases = {
        "unknown": {"guided_json": {}, "guided_decoding_backend": "nonsense"},
        "number": {"guided_json": {}, "guided_decoding_backend": 5},
        "two wishes": form(regex="a", json={}),
        "two ways": {**form(regex="a"), "guided_regex": "b"},
        "none": form(),
        "with min_tokens": {**form(regex="a"), "min_tokens": 2},
    }
    each(CHAT, PLAIN_CHAT, BAD, cases)(arena)


def row(id: str, name: str, attack: Attack | Callable[[Arena], None], expected: str, **more: Any) -> Row:
    return Row(
        id=id,
        name=name,
        expected=expected,
        attack=attack,
        **{"budget_ms": 15_000, "with_victim": True, **more},
    )


IN_TIME = "400 or an answer, each within 2 s"
ROWS: tuple[Row, ...] = (
    row(
        "G01",
        "regular expressions that explode",
        refused_or_done(
            {name: form(regex=text) for name, text in REGEXES.items() if name not in MUST_REFUSE}
        ),
        IN_TIME,
        stall_ms=150,
    ),
    row(
        "G01",
        "regular expressions that we do not have",
        refused_or_done({name: form(regex=REGEXES[name]) for name in MUST_REFUSE}, must_refuse=True),
        "400, each within 2 s",
    ),
    row(
        "G03",
        "schemas that explode",
        refused_or_done({name: schema(value) for name, value in SCHEMAS.items()}),
        IN_TIME,
        stall_ms=150,
    ),
    row(
        "G03",
        "an enum of 300,000 strings",
        refused_or_done({"enum": schema({"enum": [f"value {i}" for i in range(300_000)]})}),
        IN_TIME,
        stall_ms=300,
    ),
    row("G04", "keywords that we do not have", named_place, "400 with keyword and place"),
    row(
        "G05",
        "schemas that are none",
        refused_or_done({name: schema(value) for name, value in WRONG_SCHEMAS.items()}, must_refuse=True),
        "400",
    ),
    row("G05", "an empty schema", refused_or_done({"empty": schema({}), "true": form(json={})}), IN_TIME),
    row(
        "G06",
        "grammars that are none, or explode",
        refused_or_done({name: form(grammar=text) for name, text in GRAMMARS.items()}),
        IN_TIME,
        stall_ms=150,
    ),
    row(
        "G08",
        "a form that no token fits",
        refused_or_done(
            {
                "private use": form(regex="[\ue000-\ue010]{3}"),
                "nothing": form(regex="[^\\s\\S]"),
                "choice of nothing": form(choice=[]),
                "an empty choice": form(choice=[""]),
            }
        ),
        IN_TIME,
    ),
    row("G08", "forms without an end", cut_answers, "400, or finish_reason length"),
    row("G09", "back ends and wishes that contradict", back_ends, "400"),
    row("G10", "odd tools", refused_or_done(TOOLS), IN_TIME, stall_ms=150),
    row(
        "G11",
        "what models are made to write",
        linear_parsers,
        "read in linear time by every format",
        with_victim=False,
        budget_ms=240_000,
        only_full=True,
    ),
    row("G13", "templates from requests", switched_off, "400: switched off"),
    row("G14", "template settings that mean our own", each(CHAT, PLAIN_CHAT, BAD, hostile_kwargs()), "400"),
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
