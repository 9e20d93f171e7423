"""Templates of requests run on a leash: the same text, and no bomb reaches the process that asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from small_tokenizers import CHATML, as_tokenizer, byte_level_backend

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.base.leash import Leash, LeashBroken
from octavo.tokens.template_leash import MEMORY_BYTES, WALL_S, TemplateLeash
from tests.child_processes import children_running

TOKENIZER = as_tokenizer(byte_level_backend(), CHATML)
CHAT = [{"role": "user", "content": "hi <|im_end|>"}]
BIG = "{% set a = 'ab ' * 300000 %}"
BOMBS = {
    "memory in a loop": "{% set ns = namespace(l=[]) %}{% for i in range(10000) %}"
    "{% set ns.l = [ns.l, 'x' * 1000000] %}{% endfor %}",
    "memory in a line": BIG + "{% set l = [" + "a[1:]," * 2000 + "] %}",
    "memory of lists": BIG + "{% set l = [" + "a.split()," * 300 + "] %}",
    "time in loops": "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
    "time in a line": BIG + "{% set l = [" + "(a.split() | sort | length)," * 2000 + "] %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.fixture
async def leash() -> AsyncIterator[TemplateLeash]:
    leash = TemplateLeash()
    yield leash
    await leash.close()


def encode(leash: TemplateLeash | None, template: str) -> list[int]:
    run = None if leash is None else leash.run
    return TOKENIZER.encode_chat(CHAT, chat_template=template, template_kwargs={"a": [1, None, "é"]}, run=run)


async def test_the_same_as_in_process(leash: TemplateLeash) -> None:
    for template in (CHATML, "{{ messages[0].content }}{{ a | tojson }}", "{{ bos_token }}x"):
        assert await asyncio.to_thread(encode, leash, template) == encode(None, template)


async def test_nothing_runs_before_the_first_template(leash: TemplateLeash) -> None:
    before = {child.pid for child in psutil.Process().children()}
    await asyncio.to_thread(encode, leash, CHATML)
    started = [child for child in psutil.Process().children() if child.pid not in before]
    assert 1 <= len(started) <= 2
    await leash.close()
    assert not any(child.is_running() for child in started)
    with pytest.raises(EngineError) as caught:
        encode(leash, CHATML)
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_ends_itself_alone(leash: TemplateLeash, name: str) -> None:
    bomb = asyncio.create_task(asyncio.to_thread(encode, leash, BOMBS[name]))
    neighbour = await asyncio.to_thread(encode, leash, CHATML)
    assert neighbour == encode(None, CHATML)
    with pytest.raises(RequestError) as caught:
        await bomb
    assert caught.value.code is ErrorCode.TEMPLATE_FAILED and caught.value.param in (
        "chat_template",
        "messages",
    )
    assert await asyncio.to_thread(encode, leash, CHATML) == neighbour
    for helper in children_running("template_helper"):
        assert helper.memory_info().rss < MEMORY_BYTES + 200 * 2**20


async def test_helpers_know_no_secrets(leash: TemplateLeash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_API_KEY", "a secret")
    await asyncio.to_thread(encode, leash, CHATML)
    helpers = children_running("template_helper")
    assert helpers
    for helper in helpers:
        assert "a secret" not in helper.environ().values() and "PATH" in helper.environ()


async def test_what_no_message_can_carry(leash: TemplateLeash) -> None:
    for template in ("\ud800", "{{ messages[0].content + '\\ud800' }}"):
        with pytest.raises(RequestError):
            await asyncio.to_thread(encode, leash, template)


def test_who_asks_while_it_is_closed_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put behind the end of the queue, a wish would be waited for beyond the end of the server."""
    leash = Leash("octavo.tokens.template_helper", wall_s=WALL_S)
    put, closing = leash._jobs.put, threading.Thread(target=leash.close)

    def close_first(job: Any) -> None:
        if job is not None:
            closing.start()
            closing.join(timeout=0.3)
        put(job)

    monkeypatch.setattr(leash, "_jobs", Mock(wraps=leash._jobs, put=close_first))
    answer = leash.ask(b"late")
    with pytest.raises((EngineError, LeashBroken)):
        answer.result(timeout=10)
    closing.join()
