"""What rows are written with: ways to send, and what must come back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.attacks.after import slowness
from tests.attacks.arena import Arena
from tests.attacks.row import Attack

COMPLETIONS, CHAT, MESSAGES = "/v1/completions", "/v1/chat/completions", "/v1/messages"
JSON = {"content-type": "application/json"}
CONTEXT_LENGTH = "context_length_exceeded"
UNSPEAKABLE = re.compile(r"Traceback|object at 0x|octavo\.\w|/work/|/usr/|/tmp/|pydantic|msgspec|\w+Error\(")
"""What no error may say."""
FORM_S = 2.0
"""One form, from request to answer, says the list."""
IN_TIME = "400 or an answer, each within 2 s"


@dataclass(frozen=True)
class Refusal:
    """A status, and what our error shape says beside it. None: any."""

    status: int | tuple[int, ...]
    code: str | tuple[str, ...] | None = None
    param: str | None = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.status, self.code, self.param) if part is not None)

    def check(self, reply: httpx.Response) -> None:
        statuses = self.status if isinstance(self.status, tuple) else (self.status,)
        assert reply.status_code in statuses, f"expected {self}, got {reply.status_code} {reply.text[:500]}"
        assert len(reply.headers["x-request-id"]) == 32
        if reply.request.method == "HEAD":
            return
        message, code, param = read_error(reply)
        assert message and len(message) <= 2100 and not UNSPEAKABLE.search(message), message[:500]
        codes = self.code if isinstance(self.code, tuple) else (self.code,)
        assert self.code is None or code is None or code in codes, f"expected {self}, got {code}: {message}"
        assert self.param is None or code is None or param == self.param, (
            f"{param} is named, not {self.param}"
        )
        if reply.status_code in (429, 503, 529):
            assert int(reply.headers["retry-after"]) >= 1


def read_error(reply: httpx.Response) -> tuple[str, str | None, str | None]:
    """Message, code and parameter of an error. Code and parameter are None where a protocol has none."""
    assert reply.headers["content-type"] == "application/json", reply.headers["content-type"]
    body = json.loads(reply.content.decode("utf-8"))
    error = body["error"]
    if isinstance(error, str):  # Ollama, TGI
        return error, None, None
    if body.get("type") == "error":  # Anthropic
        assert set(error) == {"type", "message"}, error
        return error["message"], None, None
    assert list(error) == ["message", "type", "param", "code"], error
    return error["message"], error["code"], error["param"]


def sends(
    content: bytes | Callable[[Arena], bytes],
    refusal: Refusal,
    *,
    path: str = COMPLETIONS,
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> Attack:
    """Send these bytes as the body of a request."""

    def attack(arena: Arena) -> None:
        body = content(arena) if callable(content) else content
        with arena.client() as client:
            reply = client.request(method, path, content=body, headers=JSON if headers is None else headers)
        refusal.check(reply)

    return attack


def posts(path: str, body: dict[str, Any] | Callable[[Arena], dict[str, Any]], refusal: Refusal) -> Attack:
    """POST this as JSON."""
    return sends(
        lambda arena: json.dumps(body(arena) if callable(body) else body).encode(), refusal, path=path
    )


def completes(body: dict[str, Any], refusal: Refusal) -> Attack:
    """POST /v1/completions with these fields."""
    return posts(COMPLETIONS, {"prompt": "x", "max_tokens": 4, **body}, refusal)


def chats(body: dict[str, Any], refusal: Refusal) -> Attack:
    """POST /v1/chat/completions with these fields."""
    messages = [{"role": "user", "content": "x"}]
    return posts(CHAT, {"messages": messages, "max_tokens": 4, **body}, refusal)


def each(path: str, plain: dict[str, Any], refusal: Refusal, wrong: dict[str, dict[str, Any]]) -> Attack:
    """POST `plain` with each of these fields instead: all are refused so. Raises with those that are not."""

    def attack(arena: Arena) -> None:
        problems = []
        with arena.client() as client:
            for name, fields in wrong.items():
                reply = client.post(path, content=json.dumps({**plain, **fields}).encode(), headers=JSON)
                try:
                    refusal.check(reply)
                except AssertionError as error:
                    problems.append(f"{name}: {error}")
        assert not problems, "; ".join(problems)

    return attack


PLAIN = {"prompt": "x", "max_tokens": 4, "temperature": 0}
USER = {"role": "user", "content": "x"}
PLAIN_CHAT = {"messages": [USER], "max_tokens": 4, "temperature": 0}


def wrong(field: str, *values: Any, code: str | tuple[str, ...] = "invalid_value", **beside: Any) -> Attack:
    """Completions in which `field` is each of these: 400, and the field is named."""
    cases = {repr(value)[:40]: {field: value, **beside} for value in values}
    return each(COMPLETIONS, PLAIN, Refusal(400, code, field), cases)


def wrong_chat(
    field: str, *values: Any, code: str | tuple[str, ...] = "invalid_value", **beside: Any
) -> Attack:
    """The same of chats."""
    cases = {repr(value)[:40]: {field: value, **beside} for value in values}
    return each(CHAT, PLAIN_CHAT, Refusal(400, code, field), cases)


def answers(path: str, plain: dict[str, Any], bodies: dict[str, dict[str, Any]]) -> Attack:
    """POST `plain` with each of these fields: all are answered, with finite numbers only."""

    def attack(arena: Arena) -> None:
        problems = []
        with arena.client() as client:
            for name, fields in bodies.items():
                reply = client.post(path, json={**plain, **fields})
                if reply.status_code != 200:
                    problems.append(f"{name}: {reply.status_code} {reply.text[:200]}")
                elif re.search(r"NaN|Infinity", reply.text):
                    problems.append(f"{name}: {reply.text[:300]}")
        assert not problems, "; ".join(problems)

    return attack


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
