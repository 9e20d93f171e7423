"""Load for a server of /v1/completions: streams in flight from several processes, with next to no parsing.

Chunks are only put beside each other while they arrive; what they say is read when a stream has ended.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import re
import time
from dataclasses import dataclass

END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
USAGE = re.compile(rb'"completion_tokens":(\d+)')


@dataclass(frozen=True)
class Answer:
    """One stream as the client saw it."""

    ttft_s: float
    tpot_s: float
    num_tokens: int
    num_chunks: int


@dataclass(frozen=True)
class LoadPlan:
    """What to send, and how."""

    port: int
    model: str
    requests: list[tuple[list[int], int]]
    """Prompt and number of answer tokens."""
    concurrency: int
    num_processes: int = 2


def mixed_requests(count: int, vocab_size: int, seed: int = 0) -> list[tuple[list[int], int]]:
    """Lognormal lengths as chats have them: prompts 16 to 1024, answers 16 to 768, about 190 on average."""
    source = random.Random(seed)

    def length(deviation: float, most: int) -> int:
        return int(min(max(source.lognormvariate(5.0, deviation), 16), most))

    return [
        ([source.randrange(1000, vocab_size - 2000) for _ in range(length(0.9, 1024))], length(0.7, 768))
        for _ in range(count)
    ]


def drive(plan: LoadPlan) -> tuple[list[Answer], float]:
    """Send everything; the answers, and the seconds from the first request to the last answer."""
    context = multiprocessing.get_context("spawn")
    queue, go = context.Queue(), context.Event()
    processes = [
        context.Process(target=_run_process, args=(plan, number, queue, go))
        for number in range(plan.num_processes)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        assert queue.get(timeout=60) == "ready"
    began = time.perf_counter()
    go.set()
    answers = [answer for _ in processes for answer in queue.get(timeout=600)]
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return answers, seconds


def _run_process(
    plan: LoadPlan, number: int, queue: multiprocessing.Queue, go: multiprocessing.Event
) -> None:
    bodies = [
        (_request(plan.model, prompt, count), count)
        for prompt, count in plan.requests[number :: plan.num_processes]
    ]
    queue.put("ready")
    go.wait()
    queue.put(asyncio.run(_drive_lanes(plan, bodies)))


async def _drive_lanes(plan: LoadPlan, bodies: list[tuple[bytes, int]]) -> list[Answer]:
    answers: list[Answer] = []
    waiting = iter(bodies)
    loop = asyncio.get_running_loop()

    async def lane() -> None:
        _, stream = await loop.create_connection(_Stream, "127.0.0.1", plan.port)
        for body, count in waiting:
            answer = await stream.ask(body)
            assert answer.num_tokens == count, (answer, count)
            answers.append(answer)

    await asyncio.gather(*(lane() for _ in range(plan.concurrency // plan.num_processes)))
    return answers


class _Stream(asyncio.Protocol):
    """One connection, one stream at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._times: list[float] = []
        self._pieces: list[bytes] = []
        self._done: asyncio.Future[None] | None = None

    async def ask(self, request: bytes) -> Answer:
        self._times, self._pieces = [], []
        self._done = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._transport.write(request)
        await self._done
        data = b"".join(self._pieces)
        assert data.startswith(b"HTTP/1.1 200"), data[:500]
        usage = USAGE.findall(data)
        num_tokens = int(usage[-1])
        # The head of the answer may come apart from the first chunk; the last piece is the end.
        first = next(t for t, piece in zip(self._times, self._pieces, strict=True) if b"data: " in piece)
        tpot = (self._times[-1] - first) / max(1, num_tokens - 1)
        return Answer(first - began, tpot, num_tokens, data.count(b'"choices":[{'))

    def data_received(self, data: bytes) -> None:
        self._times.append(time.perf_counter())
        self._pieces.append(data)
        if data.endswith(b"0\r\n\r\n") and b"".join(self._pieces[-3:]).endswith(END):
            assert self._done is not None
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed the connection"))


def _request(model: str, prompt: list[int], num_tokens: int) -> bytes:
    body = json.dumps(
        {
            "model": model,
            "prompt": prompt,
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
