"""Execution of lines: each through the application, as many at a time as there are slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from starlette.types import ASGIApp

from octavo.base.errors import ErrorCode
from octavo.server.openai.batches.call import Reply, post
from octavo.server.openai.batches.entries import Entry, EntryError, EntryResponse, entry_id
from octavo.server.openai.batches.lines import Line

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Between tries of a line that the server has no room for."""

MAX_FAILURES = 3
"""Answers 5xx that one line may get before the last of them is its entry."""

BATCH_PRIORITY = 1000
"""Greater is later: where the scheduler looks at priorities, lines of batches come behind everybody else."""

Recover = Callable[[], Awaitable[None]]
"""Called after an answer 5xx: returns when another try makes sense; raises where none ever will."""

Record = Callable[[Entry], Awaitable[None]]


class _Code(msgspec.Struct):
    code: str


class _Refusal(msgspec.Struct):
    """What is looked at of an error's body."""

    error: _Code


class LineExecutor:
    """Executes single lines."""

    def __init__(self, app: ASGIApp, recover: Recover, *, has_priorities: bool) -> None:
        self._app = app
        self._recover = recover
        self._has_priorities = has_priorities

    async def execute(self, line: Line, owner: str) -> Entry:
        """The entry of a line. Waits for as long as the server is full, drains, sleeps or is not ready."""
        try:
            body = self._body(line)
        except (OverflowError, msgspec.EncodeError):
            return _entry(line, error=EntryError("invalid_value", "The body holds a number beyond 64 bits."))
        wait_s, num_failures = FIRST_WAIT_S, 0
        while True:
            reply = await post(self._app, line.url, body, owner)
            if reply.status == 503 and not _broke_the_engine_down(reply):
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            if reply.status >= 500 and reply.status != 503:
                await self._recover()
                num_failures += 1
                if num_failures < MAX_FAILURES:
                    continue
            return _answered(line, reply)

    def _body(self, line: Line) -> bytes:
        if not self._has_priorities:
            return line.body
        body = msgspec.json.decode(line.body)
        wish = body.get("priority")
        # What is no number is left for the route to refuse.
        if wish is None or (type(wish) is int and wish < BATCH_PRIORITY):
            body["priority"] = BATCH_PRIORITY
        return msgspec.json.encode(body)


async def execute_all(
    lines: Iterator[Line],
    execute: Callable[[Line], Awaitable[Entry]],
    record: Record,
    slots: asyncio.Semaphore,
) -> None:
    """Execute every line and record its entry. A line is read only when there is a slot for it.

    Who else takes from the same slots gets its turn after each line: they are given in order of asking.
    """

    async def run(line: Line) -> None:
        await record(await execute(line))

    async with asyncio.TaskGroup() as group:
        while True:
            await slots.acquire()
            try:
                line = await asyncio.to_thread(next, lines, None)
            except BaseException:
                slots.release()
                raise
            if line is None:
                slots.release()
                return
            # A task that is cancelled before its first step never gets to a `finally` of its own.
            group.create_task(run(line)).add_done_callback(lambda _: slots.release())


def _broke_the_engine_down(reply: Reply) -> bool:
    """The one 503 that waiting does not help: the engine has tried that line on several cores, alone on the
    last one. There is a limit to how many cores a server starts."""
    try:
        return (
            msgspec.json.decode(reply.body, type=_Refusal).error.code == ErrorCode.ENGINE_RESTARTED.value.code
        )
    except msgspec.MsgspecError:
        return False


def _answered(line: Line, reply: Reply) -> Entry:
    body = bytes(reply.body)
    if not reply.headers.get(b"content-type", b"").startswith(b"application/json"):
        return _entry(line, error=EntryError(ErrorCode.INTERNAL.value.code, "The answer is not JSON."))
    if b"\n" in body:  # An entry is one line.
        body = msgspec.json.encode(msgspec.json.decode(body))
    return _entry(line, response=EntryResponse(reply.status, reply.request_id, msgspec.Raw(body)))


def _entry(line: Line, *, response: EntryResponse | None = None, error: EntryError | None = None) -> Entry:
    return Entry(id=entry_id(line.number), custom_id=line.custom_id, response=response, error=error)
