"""A client that goes away stops costing: its work is cancelled, and cancelling aborts the request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from octavo.server.errors import ClientGone

T = TypeVar("T")


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`; cancels it and raises ClientGone if the client leaves first."""
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(until_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        await end_tasks(task, watcher)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what still runs and wait until it has cleaned up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
