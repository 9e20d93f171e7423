"""Rows 2.6: many at once: for rows, blocks, the prefix cache and their turn, and against the clock."""

from __future__ import annotations

import asyncio
import random
import time

from tests.attacks.arena import Arena, Setting
from tests.attacks.crowd import (
    LONG,
    Answer,
    Body,
    ask_all,
    ask_all_async,
    body,
    counter,
    golden,
    leave,
    opened,
    read_events,
    tokens_of,
    wait_quiet,
)
from tests.attacks.row import Row

TIGHT = Setting(flags=("--num-blocks", "30", "--max-num-seqs", "64"))
"""480 tokens of KV: less than the context of 512."""
KEYS = """
[[keys]]
name = "crowd"
key = "sk-crowd"
[[keys]]
name = "single"
key = "sk-single"
"""
TENANTS = Setting(key_file=KEYS, key="sk-single")
BLOCK = 16


def deadlines(arena: Arena) -> None:
    """C08. In the queue, while it runs, by header and by field. What waited was never computed."""
    fillers = [opened(arena, {**LONG, "max_tokens": 450}) for _ in range(8)]
    for connection in fillers:
        read_events(connection, 1)
    before = counter(arena, "vllm:prompt_tokens_total")
    waiting = ask_all(arena, [body("never to be computed", 4)] * 3, headers={"x-request-timeout": "0.001"})
    assert counter(arena, "vllm:prompt_tokens_total") == before, "an expired request was prefilled"
    for connection in fillers:
        leave(connection, is_rude=True)
    wait_quiet(arena)
    running = ask_all(arena, [body("too long for its time", 450, request_timeout=0.05)])
    for answer in waiting:
        error = answer.error or {}
        assert (answer.status, error.get("code")) == (504, "deadline_exceeded"), answer
    # It may have begun: then the error is its last event.
    assert running[0].error is not None and running[0].error["code"] == "deadline_exceeded", running


def thundering_herd(arena: Arena) -> None:
    """C10. One prefix, hundreds of readers: the same tokens for all, and the work of about one."""
    prompt = f"herd {time.monotonic_ns()} " + "of a long prefix that everybody shares " * 8
    wish = body(prompt, 6)
    count = arena.many(500, 40)
    right = golden(arena, wish)
    before = [counter(arena, f"vllm:prefix_cache_{name}_total") for name in ("queries", "hits")]
    answers = ask_all(arena, [wish] * count)
    assert tokens_of(answers) == [right] * count
    queries, hits = (
        counter(arena, f"vllm:prefix_cache_{name}_total") - old
        for name, old in zip(("queries", "hits"), before, strict=True)
    )
    # Each has less than a block and a last token of its own.
    assert queries - hits <= len(prompt) + count * (BLOCK + 1), f"{queries} asked for, {hits} found"


def cache_pressure(arena: Arena) -> None:
    """C11. Prompts at block boundaries, hit, evicted and reset meanwhile: as from a cold cache."""
    rng = random.Random(11)
    lengths = [blocks * BLOCK + more for blocks in (1, 2, 3, 5, 12) for more in (-1, 0, 1)]
    wishes = [body([rng.randrange(250) for _ in range(length)], 20) for length in lengths]
    right = [golden(arena, wish) for wish in wishes]
    for _ in range(arena.many(12, 2)):
        noise = [body([rng.randrange(250) for _ in range(300)], 4) for _ in range(12)]
        mixed = [*enumerate(wishes), *((-1, one) for one in noise), *enumerate(wishes)]
        rng.shuffle(mixed)
        answers = asyncio.run(_with_resets(arena, [wish for _, wish in mixed]))
        for (place, _), tokens in zip(mixed, tokens_of(answers), strict=True):
            assert place < 0 or tokens == right[place], f"a prompt of {lengths[place]} tokens: {tokens}"


async def _with_resets(arena: Arena, bodies: list[Body]) -> list[Answer]:
    asking = asyncio.create_task(ask_all_async(arena, bodies))
    while not asking.done():
        reply = await asyncio.to_thread(arena.admin.post, "/reset_prefix_cache")
        assert reply.status_code == 200, reply.text
        await asyncio.wait({asking}, timeout=0.05)
    return await asking


def preemption_storm(arena: Arena) -> None:
    """Many long answers, room for eight: all are golden, in little more work than they need."""
    bodies = [body(f"storm {number:03d} of many", 40) for number in range(arena.many(64, 24))]
    right = [golden(arena, one) for one in bodies]
    before = _work(arena), counter(arena, "vllm:num_preemptions_total")
    answers = ask_all(arena, bodies)
    assert tokens_of(answers) == right
    computed, preemptions = _work(arena) - before[0], counter(arena, "vllm:num_preemptions_total") - before[1]
    ideal = sum(len(str(one["prompt"])) + 40 for one in bodies)
    assert preemptions > 0, "no storm"
    assert computed <= 3 * ideal, f"{computed} tokens computed, {ideal} needed"


def _work(arena: Arena) -> float:
    """Tokens computed."""
    return counter(arena, "vllm:iteration_tokens_total_sum")


def more_than_there_is(arena: Arena) -> None:
    """C06. 480 tokens of KV, a context of 512: what lies between can never fit."""
    answers = ask_all(arena, [body("x" * 10, 485), body([1] * 500, 4), body("x" * 10, 4)])
    assert [answer.status for answer in answers] == [400, 400, 200], answers
    for answer in answers[:2]:
        assert answer.error is not None and answer.error["code"] == "context_length_exceeded", answer.error


def a_crowd_and_a_single(arena: Arena) -> None:
    """C09. Whoever comes alone is not behind the crowd: at most two turns of the rows go by."""
    crowd, single, asked_at = asyncio.run(_both(arena, arena.many(1000, 60)))
    tokens_of([*crowd, single])
    meanwhile = sum(asked_at < answer.began_at < single.began_at for answer in crowd)
    assert meanwhile <= 2 * 8, f"{meanwhile} of the crowd began before the single one"


async def _both(arena: Arena, num_crowd: int) -> tuple[list[Answer], Answer, float]:
    bodies = [body(f"crowd {number}", 120) for number in range(num_crowd)]
    crowd = asyncio.create_task(ask_all_async(arena, bodies, key="sk-crowd"))
    while (await asyncio.to_thread(arena.account))["waiting"] < num_crowd // 3:
        await asyncio.sleep(0.01)
    asked_at = time.monotonic()
    # In a loop of its own: this one is busy with the crowd.
    (single,) = await asyncio.to_thread(ask_all, arena, [body("alone", 4)], key="sk-single")
    return await crowd, single, asked_at


ROWS: tuple[Row, ...] = (
    Row(id="C08", name="deadlines", expected="504, and nothing computed", attack=deadlines, budget_ms=10_000),
    Row(
        id="C10",
        name="thundering herd",
        expected="equal answers, one prefill's work",
        attack=thundering_herd,
        budget_ms=60_000,
        stall_ms=200,
    ),
    Row(
        id="C11",
        name="prefix cache: block boundaries, evictions, resets",
        expected="tokens as from a cold cache",
        attack=cache_pressure,
        budget_ms=60_000,
    ),
)

TIGHT_ROWS: tuple[Row, ...] = (
    Row(
        id="C05",
        name="preemption storm",
        expected="golden answers, at most three times the work",
        attack=preemption_storm,
        budget_ms=60_000,
    ),
    Row(id="C06", name="more than there is", expected="400 at once", attack=more_than_there_is),
)

TENANT_ROWS: tuple[Row, ...] = (
    Row(
        id="C09",
        name="a crowd of one client, a single request of another",
        expected="the single one does not wait for the crowd",
        attack=a_crowd_and_a_single,
        budget_ms=120_000,
        stall_ms=200,
    ),
)
