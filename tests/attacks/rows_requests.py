"""Rows 2.6: the life of a request: clients that leave, cancel, come in crowds, press on cache and blocks."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable

from tests.attacks.arena import Arena, Setting
from tests.attacks.crowd import (
    Answer,
    Body,
    ask_all,
    ask_all_async,
    body,
    counter,
    golden,
    leave,
    raw_post,
    read_events,
    tokens_of,
    wait_until,
)
from tests.attacks.row import Attack, NotThere, Row

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
LONG = body("a stream that is left", 300, stream=True)
SCHEMA = {
    "type": "object",
    "properties": {f"field{number}": {"type": "string", "maxLength": 40} for number in range(300)},
    "required": [f"field{number}" for number in range(300)],
}


# C01: clients that leave.

Stage = Callable[[Arena, bool, random.Random], None]
"""Connects, gets as far as its name says, and leaves: rudely or not."""


def leaves(stage: Stage, *, num_aborts: int | None) -> Attack:
    """Several clients do so. num_aborts: how many samples each of them has aborted (None: it depends)."""

    def attack(arena: Arena) -> None:
        before, times = _aborts(arena), arena.many(20, 4)
        for number in range(times):
            stage(arena, number % 2 == 0, random.Random(number))
        _wait_quiet(arena)
        counted = _aborts(arena) - before
        at_most = times if num_aborts is None else times * num_aborts
        assert counted <= at_most, f"{counted} aborts counted of {times} clients"
        assert num_aborts is None or counted == at_most, f"{counted} aborts counted, {at_most} expected"

    return attack


def _aborts(arena: Arena) -> float:
    return counter(arena, "vllm:request_success_total", 'finished_reason="abort"')


def _wait_quiet(arena: Arena) -> None:
    wait_until(lambda: not arena.account()["open_requests"], "all requests are over")


def within_headers(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    _cut(arena, raw_post(arena, LONG)[: rng.randrange(1, 100)], is_rude)


def within_body(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    data = raw_post(arena, LONG)
    _cut(arena, data[: -rng.randrange(1, 60)], is_rude)


def after_body(arena: Arena, is_rude: bool, _: random.Random) -> None:
    _cut(arena, raw_post(arena, LONG), is_rude)


def _cut(arena: Arena, data: bytes, is_rude: bool) -> None:
    connection = arena.connect()
    connection.sendall(data)
    leave(connection, is_rude=is_rude)


def within_tokenizing(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    connection = arena.connect()
    connection.sendall(raw_post(arena, body("x " * 200_000, 4, stream=True)))
    time.sleep(rng.uniform(0, 0.02))
    leave(connection, is_rude=is_rude)


def within_compiling(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    form = {"type": "json_schema", "json_schema": {"name": f"n{rng.random()}", "schema": SCHEMA}}
    wish = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 200, "response_format": form}
    connection = arena.connect()
    connection.sendall(raw_post(arena, wish, "/v1/chat/completions"))
    time.sleep(rng.uniform(0, 0.1))
    leave(connection, is_rude=is_rude)


def within_prefill(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    """The longest prompt that fits; nothing has been answered yet."""
    connection = arena.connect()
    prompt = [rng.randrange(250) for _ in range(500)]
    connection.sendall(raw_post(arena, body(prompt, 10, stream=True)))
    time.sleep(rng.uniform(0, 0.03))
    leave(connection, is_rude=is_rude)


def at_a_token(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    connection = arena.connect()
    connection.sendall(raw_post(arena, {**LONG, "max_tokens": 450}))
    read_events(connection, rng.choice((1, 2, 3, 10)))
    leave(connection, is_rude=is_rude)


def at_the_last_token(arena: Arena, is_rude: bool, _: random.Random) -> None:
    connection = arena.connect()
    connection.sendall(raw_post(arena, {**LONG, "max_tokens": 3}))
    read_events(connection, 3)
    leave(connection, is_rude=is_rude)


def within_an_error(arena: Arena, is_rude: bool, _: random.Random) -> None:
    _cut(arena, raw_post(arena, {**LONG, "max_tokens": -1}), is_rude)


def without_a_stream(arena: Arena, is_rude: bool, rng: random.Random) -> None:
    connection = arena.connect()
    connection.sendall(raw_post(arena, {**LONG, "max_tokens": 450, "stream": False}))
    wait_until(lambda: arena.account()["running"] > 0, "it runs")
    time.sleep(rng.uniform(0, 0.05))
    leave(connection, is_rude=is_rude)


def leave_while_waiting(arena: Arena) -> None:
    """All rows are taken; those who wait leave, then those who run."""
    before, num_waiting = _aborts(arena), arena.many(50, 6)
    running = [_opened(arena, {**LONG, "max_tokens": 450}) for _ in range(8)]
    for connection in running:
        read_events(connection, 1)
    waiting = [_opened(arena, LONG) for _ in range(num_waiting)]
    wait_until(lambda: arena.account()["open_requests"] > len(running), "somebody waits")
    for number, connection in enumerate([*waiting, *running]):
        leave(connection, is_rude=number % 2 == 0)
    _wait_quiet(arena)
    assert len(running) <= _aborts(arena) - before <= len(running) + num_waiting


def _opened(arena: Arena, wish: Body) -> socket.socket:
    connection = arena.connect()
    connection.sendall(raw_post(arena, wish))
    return connection


# C03 to C11.


def cancel_and_retry(arena: Arena) -> None:
    """The same prompt, left after a few tokens, again and again: then answered as if nothing had been."""
    wish = body("cancelled and sent again, with enough text to fill a few blocks of the cache", 60)
    right, rng = golden(arena, wish), random.Random(3)
    for _ in range(arena.many(50, 12)):
        connection = arena.connect()
        connection.sendall(raw_post(arena, {**wish, "stream": True}))
        num_read = rng.choice((0, 0, 1, 2, 7))
        read_events(connection, num_read) if num_read else time.sleep(rng.uniform(0, 0.02))
        leave(connection, is_rude=rng.random() < 0.5)
    assert tokens_of(ask_all(arena, [wish])) == [right]


def aborts_by_id(arena: Arena) -> None:
    """Unknown, partial, finished, twice, and racing with the end: nobody else notices, counts stay sane."""
    before = _aborts(arena)
    done = arena.public.post("/v1/completions", json=body("short", 2)).json()["id"]
    for name in ("", "c", "cmpl-", done, done[:-1], "cmpl-" + "0" * 32):
        _order_abort(arena, [name] * 3)
    assert _aborts(arena) == before, "nobody was there to be aborted"
    for max_tokens in range(1, arena.many(60, 12)):
        connection = _opened(arena, {**LONG, "max_tokens": max_tokens})
        name = read_events(connection, 1).partition(b'"id":"')[2].partition(b'"')[0].decode()
        _order_abort(arena, [name, name])
        _order_abort(arena, [name])
        leave(connection, is_rude=True)
    account = arena.account()
    assert account["running"] >= 0 and account["waiting"] >= 0


def _order_abort(arena: Arena, names: list[str]) -> None:
    reply = arena.admin.post("/abort_requests", json={"request_ids": names})
    assert reply.status_code in (200, 400), reply.text


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


def deadlines(arena: Arena) -> None:
    """C08. In the queue, while it runs, by header and by field. What waited was never computed."""
    fillers = [_opened(arena, {**LONG, "max_tokens": 450}) for _ in range(8)]
    for connection in fillers:
        read_events(connection, 1)
    before = counter(arena, "vllm:prompt_tokens_total")
    waiting = ask_all(arena, [body("never to be computed", 4)] * 3, headers={"x-request-timeout": "0.001"})
    assert counter(arena, "vllm:prompt_tokens_total") == before, "an expired request was prefilled"
    for connection in fillers:
        leave(connection, is_rude=True)
    _wait_quiet(arena)
    running = ask_all(arena, [body("too long for its time", 450, request_timeout=0.05)])
    for answer in waiting:
        error = answer.error or {}
        assert (answer.status, error.get("code")) == (504, "deadline_exceeded"), answer
    # It may have begun: then the error is its last event.
    assert running[0].error is not None and running[0].error["code"] == "deadline_exceeded", running


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


GONE = "its blocks come back at once, one abort is counted"
NOTHING = "nothing was begun, nothing is left"

ROWS: tuple[Row, ...] = (
    Row(
        id="C01",
        name="leave within the headers",
        expected=NOTHING,
        attack=leaves(within_headers, num_aborts=0),
    ),
    Row(id="C01", name="leave within the body", expected=NOTHING, attack=leaves(within_body, num_aborts=0)),
    Row(id="C01", name="leave after the body", expected=GONE, attack=leaves(after_body, num_aborts=None)),
    Row(id="C01", name="leave while waiting", expected=GONE, attack=leave_while_waiting, budget_ms=10_000),
    Row(
        id="C01",
        name="leave while it is tokenised",
        expected=NOTHING,
        attack=leaves(within_tokenizing, num_aborts=0),
        budget_ms=20_000,
        with_victim=True,
    ),
    Row(
        id="C01",
        name="leave while its form is compiled",
        expected=GONE,
        attack=leaves(within_compiling, num_aborts=None),
        budget_ms=20_000,
        with_victim=True,
    ),
    Row(
        id="C01",
        name="leave within prefill",
        expected=GONE,
        attack=leaves(within_prefill, num_aborts=None),
        budget_ms=10_000,
        with_victim=True,
    ),
    Row(
        id="C01",
        name="leave at any token",
        expected=GONE,
        attack=leaves(at_a_token, num_aborts=1),
        budget_ms=10_000,
        with_victim=True,
    ),
    Row(
        id="C01",
        name="leave with the last token",
        expected="at most one abort is counted, nothing is left",
        attack=leaves(at_the_last_token, num_aborts=None),
        budget_ms=10_000,
    ),
    Row(
        id="C01", name="leave within an error", expected=NOTHING, attack=leaves(within_an_error, num_aborts=0)
    ),
    Row(
        id="C01",
        name="leave before an answer that is no stream",
        expected=GONE,
        attack=leaves(without_a_stream, num_aborts=1),
        budget_ms=20_000,
    ),
    Row(
        id="C03",
        name="cancel and send again",
        expected="the golden answer",
        attack=cancel_and_retry,
        budget_ms=20_000,
        with_victim=True,
    ),
    Row(
        id="C04",
        name="abort ids that are unknown, partial, over; twice; at the end",
        expected="no effect on others, no negative counts",
        attack=aborts_by_id,
        budget_ms=30_000,
        with_victim=True,
    ),
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

NOT_THERE = (NotThere(id="C01", name="leave while media are fetched", reason="no media yet (issue 9)"),)
