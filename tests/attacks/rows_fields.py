"""Rows 2.3: names of models, options that are objects, salts, and fields that nobody asked for."""

from __future__ import annotations

from tests.attacks.arena import Arena
from tests.attacks.row import Row, case
from tests.attacks.send import CHAT, COMPLETIONS, PLAIN, PLAIN_CHAT, Refusal, each, wrong, wrong_chat


def clean_name(arena: Arena) -> None:
    """A name that is echoed is short and cannot move a terminal's cursor."""
    with arena.client() as client:
        for path, plain in ((COMPLETIONS, PLAIN), (CHAT, PLAIN_CHAT)):
            reply = client.post(path, json={**plain, "model": "\0\x1b[31m\u202e" + "m" * 2**20})
            Refusal(404, "model_not_found", "model").check(reply)
            message = reply.json()["error"]["message"]
            assert len(message) < 300 and message.isprintable(), message


def internal_names(arena: Arena) -> None:
    """Ignored, or refused by name; never an id of ours."""
    names = ("__proto__", "__class__", "request_id", "mm_hashes", "constructor", "self", "engine_id", "rid")
    with arena.client() as client:
        for name in names:
            reply = client.post(COMPLETIONS, json={**PLAIN, name: "cmpl-mine"})
            assert reply.status_code in (200, 400), (name, reply.status_code)
            if reply.status_code == 200:
                assert "mine" not in reply.text + str(reply.headers), name


def odd_salts(arena: Arena) -> None:
    """Salts only divide the cache: answers are the same under all of them."""
    with arena.client() as client:
        texts = {
            client.post(COMPLETIONS, json={**PLAIN, "prompt": "salt" * 40, "cache_salt": salt}).json()[
                "choices"
            ][0]["text"]
            for salt in ("\0", "../../x", "é" * 100, "a b", "%s{}", "'; --")
        }
    assert len(texts) == 1, texts


ROWS: tuple[Row, ...] = (
    case(
        "V01",
        "models that are not there",
        each(
            COMPLETIONS,
            PLAIN,
            Refusal(404, "model_not_found", "model"),
            {name: {"model": name} for name in ("other", "../x", "/etc/passwd", "", "tiny/../tiny")},
        ),
        "404 model_not_found",
    ),
    case("V01", "models that are no names", wrong("model", 5, ["tiny"], {}, True)),
    case("V01", "a name of 1 MB with control characters", clean_name, "404, the name short and escaped"),
    case("V14", "stream_options", wrong("stream_options", 5, "x", [], stream=True)),
    case(
        "V14",
        "response_format",
        wrong_chat("response_format", 5, "json", [], code=("invalid_value", "unsupported_value")),
    ),
    case(
        "V14",
        "an unknown response_format",
        each(
            CHAT,
            PLAIN_CHAT,
            Refusal(400),
            {
                "kind": {"response_format": {"type": "poem"}},
                "no schema": {"response_format": {"type": "json_schema"}},
            },
        ),
    ),
    case(
        "V14",
        "tool_choice",
        each(
            CHAT,
            PLAIN_CHAT,
            Refusal(400),
            {
                repr(value): {
                    "tool_choice": value,
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                }
                for value in (
                    5,
                    "sometimes",
                    {"type": "function", "function": {"name": "missing"}},
                    {"type": "x"},
                    [],
                )
            },
        ),
    ),
    case(
        "V14",
        "a tool_choice without tools",
        each(
            CHAT,
            PLAIN_CHAT,
            Refusal(400),
            {
                "named": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
                "required": {"tool_choice": "required"},
            },
        ),
    ),
    case("V15", "names of our insides", internal_names, "ignored, or 400; never used"),
    case(
        "V15",
        "fields that would act",
        each(
            COMPLETIONS,
            PLAIN,
            Refusal(400, "unsupported_value"),
            {
                name: {name: {"x": 1}}
                for name in ("kv_transfer_params", "logits_processors", "mm_processor_kwargs", "vllm_xargs")
            },
        ),
        "400 unsupported_value",
    ),
    case("V15", "priority where there is none", wrong("priority", 1, -5, code="unsupported_value")),
    case(
        "V15",
        "300 unknown fields",
        each(COMPLETIONS, PLAIN, Refusal(400, "invalid_value"), {"all": {f"x{i}": i for i in range(300)}}),
        "400",
    ),
    case("V16", "cache_salt", wrong("cache_salt", "", 5, "s" * 2**20, ["x"])),
    case("V16", "odd salts", odd_salts, "salts like others"),
)
