"""Clients that ask without a pause, leave now and then, and compare what they get with what is right."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.light_client import Connection, Reply, post

NUM_JOBS = 12
NUM_CLIENTS = 6
LEAVING_SHARE = 0.1
KEEPING_SHARE = 0.5
"""Of the clients, those that use a connection for more than one request."""
ASK_TIMEOUT_S = 90.0
MAY_BE_SENT_AGAIN = {"engine_restarted", "engine_failed", "overloaded", "not_ready", "shutting_down"}

SAMPLED = (2, 4, 5, 7, 8, 11)
"""Jobs that draw. Where a draw falls within 1e-5 of the edge between two tokens, as in jobs 1 and 10, the
sum's order of another batch decides, with or without chaos: those are greedy."""


def job(number: int) -> dict[str, Any]:
    """Long enough to be met at work."""
    return {
        "prompt": f"Tell me story number {number}",
        "max_tokens": 150,
        "ignore_eos": True,
        "temperature": float(number in SAMPLED),
        "seed": number,
    }


@dataclass
class Visit:
    """One request, from the client's side."""

    is_streamed: bool
    waited_at: list[float] = field(default_factory=list)
    """Faults that came before its first byte; those of streams only, as others say nothing until the end."""
    met_at: list[float] = field(default_factory=list)
    """Faults that came after it."""
    outcome: str = ""
    """answer, wrong, typed, cut (the connection was lost), left (by the client), late, garbled."""
    code: str = ""
    """Of an error."""
    ended_at: float = 0.0
    num_bytes: int = 0
    """That came."""
    last_fault: str = ""
    """The last of those that met it."""
    lost_server: bool = False
    """The process at the other end of its connection was killed."""


class Load:
    """`right` is learned once, before anything breaks."""

    def __init__(self, port: int, rng: random.Random, num_clients: int = NUM_CLIENTS) -> None:
        self.port = port
        self.visits: list[Visit] = []
        self.repeated: Counter[str] = Counter()
        """Requests that were sent again at once, since a kept connection was lost before anything came."""
        self.leaving_share = LEAVING_SHARE
        self._rng = rng
        self._num_clients = num_clients
        self._right: list[str] = []
        self._open: dict[int, tuple[Visit, Connection]] = {}
        self._is_over = False
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._num_held = 0

    async def learn(self) -> None:
        for number in range(NUM_JOBS):
            connection = await Connection.open(self.port)
            reply = await connection.ask(post("/v1/completions", job(number)))
            connection.leave()
            self._right.append(_text(json.loads(reply.body())))

    async def run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._num_clients)))

    def end(self) -> None:
        self._is_over = True

    async def hold(self) -> None:
        """Begin nothing more; wait until all have ended and closed their connections."""
        self._goes_on.clear()
        while self._num_held < self._num_clients:
            await asyncio.sleep(0.02)

    def go_on(self) -> None:
        self._goes_on.set()

    def note_fault(self, kind: str) -> float:
        """Something is being broken now: remember whom it meets. Returns the time."""
        now = time.monotonic()
        for visit, connection in self._open.values():
            visit.last_fault = kind
            visit.lost_server |= kind == "kill_server"
            reply = connection.reply
            is_waiting = visit.is_streamed and (reply is None or reply.first_at is None)
            (visit.waited_at if is_waiting else visit.met_at).append(now)
        return now

    def count(self, outcome: str) -> int:
        return sum(visit.outcome == outcome for visit in self.visits)

    async def _client(self, lane: int) -> None:
        keeps = lane < self._num_clients * KEEPING_SHARE
        connection: Connection | None = None
        number = lane
        while not self._is_over:
            if not self._goes_on.is_set():
                await self._wait_with(connection)
            number = (number + self._num_clients + 1) % NUM_JOBS
            visit = Visit(is_streamed=self._rng.random() < 0.6)
            is_kept = connection is not None and connection.is_open
            try:
                if connection is None or not connection.is_open:
                    connection = await Connection.open(self.port)
                await self._visit(lane, visit, connection, number)
            except OSError as error:
                visit.outcome, visit.code = "refused", type(error).__name__
                visit.ended_at = time.monotonic()
                await asyncio.sleep(0.05)
            if is_kept and self._may_repeat(visit, connection):
                continue
            self.visits.append(visit)
            if connection is not None and not keeps:
                connection.leave()
            if visit.outcome == "typed":
                await asyncio.sleep(0.05)  # It was told to come again, not to hammer.
        if connection is not None:
            connection.leave()

    async def _wait_with(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.leave()
        self._num_held += 1
        await self._goes_on.wait()
        self._num_held -= 1

    async def _visit(self, lane: int, visit: Visit, connection: Connection, number: int) -> None:
        self._open[lane] = visit, connection
        leaves = self._rng.random() < self.leaving_share
        patience_s = self._rng.uniform(0.0, 0.5) if leaves else ASK_TIMEOUT_S
        body = {**job(number), "stream": True} if visit.is_streamed else job(number)
        try:
            async with asyncio.timeout(patience_s):
                reply = await connection.ask(post("/v1/completions", body))
            _judge(visit, reply, self._right[number])
        except TimeoutError:
            connection.leave()
            visit.outcome = "left" if leaves else "late"
        finally:
            visit.ended_at = time.monotonic()
            visit.num_bytes = 0 if connection.reply is None else len(connection.reply.data)
            del self._open[lane]

    def _may_repeat(self, visit: Visit, connection: Connection | None) -> bool:
        """A connection that was idle may be closed just when a request is sent on it: HTTP clients repeat."""
        reply = None if connection is None else connection.reply
        if visit.outcome == "cut" and reply is not None and not reply.data:
            self.repeated["closed"] += 1
        elif visit.code == "shutting_down" and reply is not None and reply.status == 503:
            self.repeated["shutting_down"] += 1
        else:
            return False
        if connection is not None:
            connection.leave()
        return True


def _judge(visit: Visit, reply: Reply, right: str) -> None:
    if not reply.is_whole:
        visit.outcome = "cut"
        return
    try:
        text = _streamed_text(reply) if visit.is_streamed and reply.status == 200 else _plain_text(reply)
    except Refused as refusal:
        visit.outcome, visit.code = "typed", refusal.code
    except (ValueError, KeyError) as error:
        visit.outcome, visit.code = "garbled", repr(error)[:200]
    else:
        visit.outcome = "answer" if text == right else "wrong"


class Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _streamed_text(reply: Reply) -> str:
    *events, last = reply.events() or [""]
    if last != "[DONE]":
        raise ValueError("a stream ended without saying so")
    return "".join(_text(json.loads(event)) for event in events)


def _plain_text(reply: Reply) -> str:
    return _text(json.loads(reply.body()))


def _text(reply: dict[str, Any]) -> str:
    if "error" in reply:
        raise Refused(reply["error"]["code"])
    return "".join(choice["text"] for choice in reply["choices"])
