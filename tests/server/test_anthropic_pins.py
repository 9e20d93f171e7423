"""cache_control becomes pins: how much of the prompt, for how long, and what usage says of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config

from octavo.base.errors import RequestError
from octavo.messages.request import PrefixPin
from octavo.server.app import create_app

LONG = "x" * 40


def text(value: str, ttl: str | None = None) -> dict[str, Any]:
    control = {"type": "ephemeral", **({"ttl": ttl} if ttl != "5m" else {})}
    return {"type": "text", "text": value, **({"cache_control": control} if ttl else {})}


async def ask(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"model": "fake", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}], **fields}
    response = await client.post("/v1/messages", json=body)
    assert response.status_code == 200, response.text
    usage: dict[str, Any] = response.json()["usage"]
    return usage


async def test_nothing_marked_nothing_pinned(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    usage = await ask(client, system=LONG)
    assert engine.pins == [[]] and usage["cache_creation_input_tokens"] == 0


async def test_a_mark_at_the_end_pins_the_whole_prompt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    usage = await ask(client, messages=[{"role": "user", "content": [text(LONG, "5m")]}])
    prompt = engine.seen[0][0]
    assert len(prompt) == 57 and engine.pins == [[PrefixPin(48, 300.0)]]
    assert usage["cache_read_input_tokens"] == 28 and usage["cache_creation_input_tokens"] == 20
    assert usage["input_tokens"] == 57 - 48
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 0}


async def test_the_top_level_mark_is_one_at_the_end(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await ask(client, system=LONG, cache_control={"type": "ephemeral", "ttl": "1h"})
    assert engine.pins == [[PrefixPin(len(engine.seen[0][0]) // 16 * 16, 3600.0)]]


async def test_a_mark_in_between_pins_as_far_as_it(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await ask(
        client,
        system=[text(LONG, "1h"), text("changes every time")],
        messages=[{"role": "user", "content": [text("y" * 40, "5m"), text("z" * 30)]}],
    )
    # "[system]" + 40 | "\nchanges every time" + "[user]" + 40 | "\n" + 30 + "[assistant]"
    assert engine.pins == [[PrefixPin(48, 3600.0), PrefixPin((48 + 19 + 46) // 16 * 16, 300.0)]]


async def test_of_several_marks_the_last_one_counts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    usage = await ask(
        client,
        system=[text(LONG, "1h")],
        messages=[
            {"role": "user", "content": [text("a" * 20, "5m")]},
            {"role": "assistant", "content": [text("b" * 20, "5m")]},
            {"role": "user", "content": "c" * 20},
        ],
    )
    num_system, num_turns = 48, 6 + 20 + 11 + 20
    assert engine.pins == [[PrefixPin(48, 3600.0), PrefixPin((num_system + num_turns) // 16 * 16, 300.0)]]
    num_read = usage["cache_read_input_tokens"]
    assert num_read == len(engine.seen[0][0]) // 2 > 48
    assert usage["cache_creation"]["ephemeral_1h_input_tokens"] == 0
    total = num_read + usage["cache_creation_input_tokens"] + usage["input_tokens"]
    assert total == len(engine.seen[0][0])


async def test_less_than_a_block_is_not_worth_a_pin(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await ask(client, system=[text("a", "5m")], messages=[{"role": "user", "content": LONG}])
    assert engine.pins == [[]]


async def test_a_template_that_wants_whole_conversations(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses to render a part: nothing is pinned, everything else goes on."""
    encode = engine.tokenizer.encode_chat

    def encode_chat(messages: list[dict[str, Any]], **options: Any) -> list[int]:
        if messages[-1]["content"] == ".":
            raise RequestError("Give me more.")
        return encode(messages, **options)

    monkeypatch.setattr(engine.tokenizer, "encode_chat", encode_chat)
    usage = await ask(client, system=[text(LONG, "5m")])
    assert engine.pins == [[]] and usage["output_tokens"] == 1


async def test_without_a_prefix_cache_nothing_is_pinned() -> None:
    engine = FakeEngine(fake_config(enable_prefix_caching=False))
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        usage = await ask(client, messages=[{"role": "user", "content": [text(LONG, "5m")]}])
    assert engine.pins == [[]] and usage["cache_creation_input_tokens"] == 0
