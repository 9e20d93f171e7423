"""Rows 2.1, first part: what is sent in well-formed HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.attacks.arena import MAX_BODY_BYTES, Arena
from tests.attacks.row import Attack, Row
from tests.attacks.send import CHAT, COMPLETIONS, JSON, Refusal, read_error, sends

INVALID = Refusal(400, "json_invalid")


def bodies(id: str, refusal: Refusal, contents: dict[str, bytes], **options: Any) -> Iterable[Row]:
    """Rows that send each of these bodies to /v1/completions."""
    for name, content in contents.items():
        yield Row(id=id, name=name, expected=str(refusal), attack=sends(content, refusal), **options)


def _field(name: str, value: bytes) -> bytes:
    return b'{"prompt": "x", "max_tokens": 1, "%b": %b}' % (name.encode(), value)


def _keys(number: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % i for i in range(number)) + b"}"


def colliding_names(arena: Arena) -> None:
    names = [b'"%d":1' % (i * (2**61 - 1)) for i in range(200)]
    with arena.client() as client:
        reply = client.post(COMPLETIONS, content=b'{"prompt": "x", %b}' % b",".join(names), headers=JSON)
    assert reply.status_code == 200, reply.text[:300]


def odd_text(text: str) -> Attack:
    """It is either refused or comes back as it was, in valid UTF-8."""

    def attack(arena: Arena) -> None:
        body = {"prompt": text, "echo": True, "max_tokens": 1, "temperature": 0}
        with arena.client() as client:
            reply = client.post(COMPLETIONS, json=body)
        if reply.status_code == 200:
            assert json.loads(reply.content.decode("utf-8"))["choices"][0]["text"].startswith(text)
        else:
            assert reply.status_code == 400, reply.text[:300]
            read_error(reply)

    return attack


def bom(arena: Arena) -> None:
    with arena.client() as client:
        reply = client.post(
            COMPLETIONS, content=b'\xef\xbb\xbf{"prompt": "x", "max_tokens": 1}', headers=JSON
        )
    assert reply.status_code in (200, 400), reply.status_code


def nested(depth: int, where: str, brackets: tuple[bytes, bytes]) -> bytes:
    inner = brackets[0] * depth + (b"1" if brackets[0] != b"[" else b"") + brackets[1] * depth
    if where == "body":
        return inner
    if where == "schema":
        return _field(
            "response_format", b'{"type": "json_schema", "json_schema": {"schema": ' + inner + b"}}"
        )
    if where == "arguments":
        call = b'{"id": "1", "type": "function", "function": {"name": "f", "arguments": ' + inner + b"}}"
        return b'{"messages": [{"role": "assistant", "tool_calls": [' + call + b"]}]}"
    return _field("metadata", inner)


TOO_DEEP = Refusal((400, 413), ("too_deep", "body_too_large", "json_invalid"))
DEEP = [
    Row(
        id="H06",
        name=f"{kind} {depth} deep in the {where}",
        expected="400 too_deep; 413 where it is too much to be read",
        attack=sends(
            nested(depth, where, brackets), TOO_DEEP, path=CHAT if where == "arguments" else COMPLETIONS
        ),
    )
    for kind, brackets in {"lists": (b"[", b"]"), "objects": (b'{"a":', b"}")}.items()
    for where in ("body", "schema", "arguments", "metadata")
    for depth in (1_000, 100_000, 1_000_000)
]


def shallow(arena: Arena) -> None:
    with arena.client() as client:
        for depth in (10, 60):
            reply = client.post(COMPLETIONS, content=nested(depth, "metadata", (b"[", b"]")), headers=JSON)
            assert reply.status_code == 200, reply.text


def media_types(refused: bool) -> Attack:
    """One policy for all routes that read JSON."""
    kinds = (
        (
            {},
            {"content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
            {"content-type": "application/json; charset=utf-16"},
            {"content-type": "application/xml"},
        )
        if refused
        else (
            {"content-type": "application/json; charset=UTF-8"},
            {"content-type": 'Application/JSON; charset="utf-8"'},
        )
    )

    def attack(arena: Arena) -> None:
        body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1}).encode()
        with arena.client() as client:
            for path in (COMPLETIONS, CHAT, "/tokenize", "/v1/responses", "/invocations"):
                for kind in kinds:
                    reply = client.post(path, content=body, headers=kind)
                    if refused:
                        Refusal(415, "unsupported_media_type").check(reply)
                    else:
                        assert reply.status_code != 415, (path, kind)

    return attack


def methods(arena: Arena) -> None:
    wrong = {
        COMPLETIONS: ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"),
        "/v1/models": ("POST", "DELETE", "TRACE"),
        "/livez": ("POST", "TRACE"),
    }
    with arena.client() as client:
        for path, names in wrong.items():
            for name in names:
                reply = client.request(name, path)
                Refusal(405, "method_not_allowed").check(reply)
                assert reply.headers["allow"], (name, path)


def no_such_routes(arena: Arena) -> None:
    with arena.client() as client:
        for path in (
            "/nothing",
            "/v1/completions/",
            "/v1/models/",
            "/V1/Models",
            "/v1",
            "/%00",
            "/v1/completions%20",
        ):
            Refusal(404, ("not_found", "model_not_found")).check(client.get(path))


def too_long(arena: Arena) -> None:
    body = b'{"prompt": "' + b"x" * MAX_BODY_BYTES + b'"}'
    with arena.client() as client:
        Refusal(413, "body_too_large").check(client.post(COMPLETIONS, content=body, headers=JSON))


ROWS: tuple[Row, ...] = (
    *bodies(
        "H01",
        INVALID,
        {
            "open brace": b"{",
            "close bracket": b"]",
            "null": b"null",
            "number": b"123",
            "string": b'"x"',
            "list": b"[]",
        },
    ),
    *bodies("H01", Refusal(400, "body_required"), {"empty": b"", "whitespace": b" \n\t "}),
    *bodies(
        "H02",
        INVALID,
        {
            "two documents": b'{"prompt": "x"}{"prompt": "y"}',
            "trailing garbage": b'{"prompt": "x"} x',
            "a comment": b'{"prompt": "x" /* y */}',
            "single quotes": b"{'prompt': 'x'}",
            "trailing comma": b'{"prompt": "x",}',
        },
    ),
    Row(id="H02", name="a byte order mark", expected="taken, or 400", attack=bom),
    *bodies(
        "H03",
        Refusal(400, "invalid_utf8"),
        {
            "overlong NUL": b'{"prompt": "\xc0\x80"}',
            "lone F5": b'{"prompt": "\xf5"}',
            "cut sequence": b'{"prompt": "\xe2\x82"}',
            "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
            "in a name": b'{"\xff": 1}',
            "Latin-1": '{"prompt": "é"}'.encode("latin-1"),
        },
    ),
    *bodies(
        "H04",
        INVALID,
        {"lone surrogate": b'{"prompt": "\\ud800"}', "low surrogate": b'{"prompt": "\\udc00x"}'},
    ),
    Row(id="H04", name="NUL", expected="text like other text", attack=odd_text("a\0b")),
    Row(id="H04", name="U+FFFE", expected="text like other text", attack=odd_text("a\ufffeb")),
    Row(id="H04", name="direction marks", expected="text like other text", attack=odd_text("\u202ea\u2066")),
    Row(
        id="H04",
        name="10 MB of combining marks",
        expected="400 context_length_exceeded, not tokenised",
        attack=sends(
            json.dumps({"prompt": "e" + "\u0301" * 5_000_000}, ensure_ascii=False).encode(),
            Refusal(400, "context_length_exceeded"),
        ),
        with_victim=True,
        stall_ms=100,
    ),
    Row(id="H06", name="10 and 60 deep", expected="200", attack=shallow),
    *DEEP,
    Row(
        id="H07",
        name="half a million keys",
        expected="413 body_too_large, in little time",
        attack=sends(_keys(500_000), Refusal(413, "body_too_large")),
        with_victim=True,
        budget_ms=500,
    ),
    Row(
        id="H07",
        name="as many keys as are parsed",
        expected="400 for the number of fields",
        attack=sends(_keys(49_000), Refusal(400, "invalid_value")),
        with_victim=True,
    ),
    *bodies(
        "H07",
        Refusal(413, "body_too_large"),
        {
            f"millions of {name}": _field("prompt", b"[" + b",".join([value] * 4_000_000) + b"]")
            for name, value in {"lists": b"[]", "objects": b"{}", "strings": b'""', "numbers": b"1"}.items()
        },
    ),
    Row(
        id="H07",
        name="names that might collide",
        expected="ignored, as quick as others",
        attack=colliding_names,
        budget_ms=500,
    ),
    *bodies(
        "H08",
        Refusal(400, "invalid_value", "temperature"),
        {
            f"temperature {value.decode()}": _field("temperature", value)
            for value in (b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b'"1"', b"true", b"[1]")
        },
    ),
    *bodies(
        "H08",
        Refusal(400, "invalid_value", "seed"),
        {"5,000 digits": _field("seed", b"9" * 5000), "float seed": _field("seed", b"1.0")},
    ),
    *bodies(
        "H08",
        INVALID,
        {
            "hexadecimal": _field("seed", b"0x10"),
            "leading zero": _field("seed", b"01"),
            "plus": _field("seed", b"+1"),
        },
    ),
    Row(
        id="H13",
        name="one byte over the limit, announced",
        expected="413 body_too_large",
        attack=too_long,
        with_victim=True,
    ),
    Row(
        id="H14",
        name="no, other and odd types",
        expected="415 on all routes",
        attack=media_types(True),
        budget_ms=3000,
    ),
    Row(id="H14", name="UTF-8 by other names", expected="taken", attack=media_types(False)),
    Row(id="H16", name="methods that a route has not", expected="405 with Allow", attack=methods),
    Row(id="H16", name="routes that are not there", expected="404", attack=no_such_routes),
)
