"""Several output streams as one, in order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from octavo.engine.outputs import RequestOutput
from octavo.server.disconnect import end_tasks

Item = tuple[int, RequestOutput]


async def close_all(streams: Sequence[AsyncIterator[RequestOutput]]) -> None:
    """End streams that may still run."""
    for stream in streams:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def merged(streams: Sequence[AsyncIterator[RequestOutput]]) -> AsyncGenerator[Item, None]:
    """(index of the stream, output). The first error ends them all."""
    # Bounded, so that a slow reader holds the streams back instead of filling memory.
    queue: asyncio.Queue[Item | BaseException | None] = asyncio.Queue(2 * len(streams))

    async def feed(index: int, stream: AsyncIterator[RequestOutput]) -> None:
        try:
            async for output in stream:
                await queue.put((index, output))
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(feed(index, stream)) for index, stream in enumerate(streams)]
    try:
        num_open = len(tasks)
        while num_open:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield item
    finally:
        await end_tasks(*tasks)
