"""Rows 2.6: clients that leave, cancel and abort, at every moment of a request's life."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.attacks.arena import Arena
from tests.attacks.crowd import (
    LONG,
    ask_all,
    body,
    counter,
    golden,
    leave,
    opened,
    raw_post,
    read_events,
    tokens_of,
    wait_quiet,
    wait_until,
)
from tests.attacks.row import Attack, NotThere, Row

SCHEMA = {
    "type": "object",
    "properties": {f"field{number}": {"type": "string", "maxLength": 40} for number in range(300)},
    "required": [f"field{number}" for number in range(300)],
}
Stage = Callable[[Arena, bool, random.Random], None]
"""Connects, gets as far as its name says, and leaves: rudely or not."""


def leaves(stage: Stage, *, num_aborts: int | None) -> Attack:
    """Several clients do so. num_aborts: how many samples each of them has aborted (None: it depends)."""

    def attack(arena: Arena) -> None:
        before, times = _aborts(arena), arena.many(20, 4)
        for number in range(times):
            stage(arena, number % 2 == 0, random.Random(number))
        wait_quiet(arena)
        counted = _aborts(arena) - before
        at_most = times if num_aborts is None else times * num_aborts
        assert counted <= at_most, f"{counted} aborts counted of {times} clients"
        assert num_aborts is None or counted == at_most, f"{counted} aborts counted, {at_most} expected"

    return attack


def _aborts(arena: Arena) -> float:
    return counter(arena, "vllm:request_success_total", 'finished_reason="abort"')


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
    wait_until(lambda: arena.account()["running"] == 0, "who left before is gone")
    connection = arena.connect()
    connection.sendall(raw_post(arena, {**LONG, "max_tokens": 450, "stream": False}))
    wait_until(lambda: arena.account()["running"] > 0, "it runs")
    time.sleep(rng.uniform(0, 0.02))  # The whole answer takes a tenth of a second.
    leave(connection, is_rude=is_rude)


def leave_while_waiting(arena: Arena) -> None:
    """All rows are taken; those who wait leave, then those who run."""
    before, num_waiting = _aborts(arena), arena.many(50, 6)
    running = [opened(arena, {**LONG, "max_tokens": 450}) for _ in range(8)]
    for connection in running:
        read_events(connection, 1)
    waiting = [opened(arena, LONG) for _ in range(num_waiting)]
    wait_until(lambda: arena.account()["open_requests"] > len(running), "somebody waits")
    for number, connection in enumerate([*waiting, *running]):
        leave(connection, is_rude=number % 2 == 0)
    wait_quiet(arena)
    assert len(running) <= _aborts(arena) - before <= len(running) + num_waiting


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
        connection = opened(arena, {**LONG, "max_tokens": max_tokens})
        name = read_events(connection, 1).partition(b'"id":"')[2].partition(b'"')[0].decode()
        _order_abort(arena, [name, name])
        _order_abort(arena, [name])
        leave(connection, is_rude=True)
    account = arena.account()
    assert account["running"] >= 0 and account["waiting"] >= 0


def _order_abort(arena: Arena, names: list[str]) -> None:
    reply = arena.admin.post("/abort_requests", json={"request_ids": names})
    assert reply.status_code in (200, 400), reply.text


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
)

NOT_THERE = (NotThere(id="C01", name="leave while media are fetched", reason="no media yet (issue 9)"),)
