"""Replies of many numbers are made and encoded beside the event loop, a piece at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import Message

from octavo.server.list_reply import list_reply
from octavo.server.openai.logprobs import LogprobFormat
from octavo.server.tgi.answer import TgiWriter


class Entry(msgspec.Struct):
    index: int
    numbers: list[float]


class Whole(msgspec.Struct, kw_only=True):
    model: str
    data: list[Entry]
    total: int


def entries(count: int, threads: set[int]) -> Iterator[Entry]:
    for index in range(count):
        threads.add(threading.get_ident())
        yield Entry(index, [0.5] * 1000)


async def sent(count: int, **how: Any) -> tuple[list[Message], set[int]]:
    threads: set[int] = set()
    reply = await list_reply(entries(count, threads), 1000 * count, **how)
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await reply({"type": "http"}, lambda: asyncio.sleep(60), send)  # type: ignore[arg-type]
    return messages, threads


@pytest.mark.parametrize("count", [0, 1, 2, 50])
async def test_a_list_is_what_one_encoding_would_be(count: int) -> None:
    whole = Whole(model='"data":[]', data=[], total=count)
    for how in ({"whole": whole}, {}):
        messages, _ = await sent(count, **how)
        body = b"".join(message.get("body", b"") for message in messages)
        data = list(entries(count, set()))
        expected = Whole(model='"data":[]', data=data, total=count) if how else data
        assert body == msgspec.json.encode(expected)
        headers = dict(messages[0]["headers"])
        assert int(headers[b"content-length"]) == len(body)
        assert headers[b"content-type"] == b"application/json"


async def test_a_long_list_is_made_in_a_thread_and_sent_in_pieces() -> None:
    messages, threads = await sent(50)
    assert threads and threading.get_ident() not in threads
    assert max(len(message.get("body", b"")) for message in messages) < 5000


async def test_a_short_list_costs_no_thread() -> None:
    _, threads = await sent(1)
    assert threads == {threading.get_ident()}


ROUTES: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 9},
    ),
    ("/v1/completions", {"prompt": "x", "logprobs": 9}),
    ("/v1/completions", {"prompt": "x" * 200, "echo": True, "logprobs": 9, "stream": True}),
    ("/v1/completions", {"prompt": "x" * 200, "prompt_logprobs": 9}),
    (
        "/api/chat",
        {
            "messages": [{"role": "user", "content": "x"}],
            "logprobs": True,
            "top_logprobs": 9,
            "stream": False,
        },
    ),
    ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 250, "top_n_tokens": 9, "details": True}}),
]


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_many_log_probabilities_are_shown_in_a_thread(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    threads: list[int] = []

    def noting(show: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            threads.append(threading.get_ident())
            return show(*arguments)

        return noted

    for name in ("chat", "legacy", "prompt"):
        monkeypatch.setattr(LogprobFormat, name, noting(getattr(LogprobFormat, name)))
    monkeypatch.setattr(TgiWriter, "_details", noting(TgiWriter._details))
    common = {"model": "fake", "max_tokens": 250, "options": {"num_predict": 250}}
    response = await client.post(path, json={**common, **body})
    assert response.status_code == 200, response.text
    assert threads and threads[0] != threading.get_ident()
