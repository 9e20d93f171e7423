"""Rows 2.4: forms of answers: regular expressions, schemas and grammars that explode, lie or never end."""

from __future__ import annotations

from functools import partial
from typing import Any

from octavo.grammar.matchers import KEPT
from tests.attacks.after import resident_bytes
from tests.attacks.arena import Arena
from tests.attacks.row import Row, case
from tests.attacks.send import CHAT, IN_TIME, PLAIN_CHAT, Refusal, each, refused_or_done


def form(**fields: Any) -> dict[str, Any]:
    return {"structured_outputs": fields}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


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


def growing_forms(arena: Arena) -> None:
    """Small forms that take 20 MB each once they are followed: few of them are kept. Their rows may fail."""
    before = resident_bytes(arena)
    with arena.client() as client:
        for number in range(arena.many(200, 48)):
            wish = form(regex=f"[xy]{{16}}aaaa{{{100_000 + number}}}b")
            reply = client.post(CHAT, json={**PLAIN_CHAT, "max_tokens": 40, **wish})
            Refusal((200, 400)).check(reply) if reply.status_code != 200 else reply.json()
        grown = resident_bytes(arena) - before
        for number in range(2 * KEPT):  # Small ones take their places, and what was theirs is given back.
            client.post(CHAT, json={**PLAIN_CHAT, "max_tokens": 1, **form(choice=[f"small {number}"])})
    assert grown < 800 * 2**20, f"memory rose by {grown >> 20} MiB"


def back_ends(arena: Arena) -> None:
    cases = {
        "unknown": {"guided_json": {}, "guided_decoding_backend": "nonsense"},
        "number": {"guided_json": {}, "guided_decoding_backend": 5},
        "two wishes": form(regex="a", json={}),
        "two ways": {**form(regex="a"), "guided_regex": "b"},
        "none": form(),
        "with min_tokens": {**form(regex="a"), "min_tokens": 2},
    }
    each(CHAT, PLAIN_CHAT, Refusal(400), cases)(arena)


row = partial(case, budget_ms=15_000, with_victim=True)
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
        "regular expressions that grow while they are followed",
        growing_forms,
        "answered or refused, in bounded memory",
        budget_ms=60_000,
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
)
