"""Many clients at once, and clients that leave in the middle: means for rows about the life of a request."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from tests.attacks.arena import Arena

PATIENCE_S = 300.0
Body = dict[str, Any]


def body(prompt: str | list[int], max_tokens: int, **more: Any) -> Body:
    """A greedy completion whose tokens come back."""
    return {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        **more,
    }


LONG = body("a stream that is left", 300, stream=True)


class Target(Protocol):
    """A server, and what opens it."""

    @property
    def url(self) -> str: ...

    @property
    def auth(self) -> dict[str, str]: ...


@dataclass
class Answer:
    """What one of a crowd got."""

    status: int = 0
    token_ids: list[int] = field(default_factory=list)
    error: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    began_at: float = 0.0
    """When its first token came, by the monotonic clock."""


def ask_all(
    server: Target, bodies: Sequence[Body], *, key: str | None = None, headers: dict[str, str] | None = None
) -> list[Answer]:
    """Stream them all at the same time."""
    return asyncio.run(ask_all_async(server, bodies, key=key, headers=headers))


async def ask_all_async(
    server: Target, bodies: Sequence[Body], *, key: str | None = None, headers: dict[str, str] | None = None
) -> list[Answer]:
    own = server.auth if key is None else {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=server.url, headers={**own, **(headers or {})}, timeout=PATIENCE_S, limits=limits
    ) as client:
        return list(await asyncio.gather(*(_ask(client, one) for one in bodies)))


async def while_asking(server: Target, bodies: list[Body], act: Callable[[], object]) -> list[Answer]:
    """Ask them all, and do something once the first of them runs."""
    asking = asyncio.create_task(ask_all_async(server, bodies))
    await asyncio.to_thread(wait_until, lambda: _running(server) > 0, "something runs")
    await asyncio.to_thread(act)
    return await asking


def _running(server: Target) -> float:
    page = httpx.get(server.url + "/metrics", timeout=10).text
    line = next(line for line in page.splitlines() if line.startswith("vllm:num_requests_running"))
    return float(line.rpartition(" ")[2])


async def _ask(client: httpx.AsyncClient, wish: Body) -> Answer:
    answer = Answer()
    async with client.stream("POST", "/v1/completions", json={**wish, "stream": True}) as response:
        answer.status = response.status_code
        answer.headers = dict(response.headers)
        if response.status_code != 200:
            answer.error = json.loads(await response.aread())["error"]
            return answer
        async for line in _lines(response):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            answer.error = event.get("error", answer.error)
            for choice in event.get("choices", ()):
                answer.token_ids += choice.get("token_ids") or []
                answer.began_at = answer.began_at or time.monotonic()
    return answer


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Up to line feeds only: httpx's own lines end at U+2028 and the like too, which answers may hold."""
    rest = b""
    async for data in response.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


def tokens_of(answers: Sequence[Answer]) -> list[list[int]]:
    """What they got, all of them having got an answer."""
    for answer in answers:
        assert answer.status == 200 and answer.error is None, f"{answer.status} {answer.error}"
    return [answer.token_ids for answer in answers]


def golden(arena: Arena, wish: Body) -> list[int]:
    """What a body gets alone, and from a cold cache."""
    cold = {**wish, "cache_salt": f"cold-{time.monotonic_ns()}"}
    reply = arena.public.post("/v1/completions", json=cold)
    assert reply.status_code == 200, reply.text
    ids: list[int] = reply.json()["choices"][0]["token_ids"]
    return ids


def counter(arena: Arena, name: str, *labels: str) -> float:
    """The sum of a metric's samples that have all these labels."""
    page = arena.public.get("/metrics").text
    lines = re.findall(rf"^{re.escape(name)}(\{{.*\}})? ([0-9.e+-]+)$", page, re.MULTILINE)
    return sum(float(value) for shown, value in lines if all(label in shown for label in labels))


def raw_post(arena: Arena, wish: Body, path: str = "/v1/completions", *, key: str | None = None) -> bytes:
    content = json.dumps(wish).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key or arena.setting.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def read_events(connection: socket.socket, count: int) -> bytes:
    """Read until so many events with tokens have come."""
    read = b""
    while read.count(b'"token_ids":[') < count and b"[DONE]" not in read:
        data = connection.recv(65536)
        assert data, f"the stream ended early: {read[-300:]!r}"
        read += data
    return read


def opened(arena: Arena, wish: Body) -> socket.socket:
    connection = arena.connect()
    connection.sendall(raw_post(arena, wish))
    return connection


def leave(connection: socket.socket, *, is_rude: bool) -> None:
    """Close; rudely is with a reset instead of a farewell."""
    if is_rude:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def wait_quiet(arena: Arena) -> None:
    wait_until(lambda: not arena.account()["open_requests"], "all requests are over")
