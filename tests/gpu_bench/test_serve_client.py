"""The client against a server that writes its stream in awkward pieces, and against Octavo's own server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.gpu.run_server import free_port, serve_and_measure, server_command
from benchmarks.gpu.serve_client import summarise
from benchmarks.gpu.shapes import Shape, write_model, write_tokenizer
from benchmarks.gpu.sse_client import Connection, Streamed
from benchmarks.gpu.workloads import Request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(text: bytes, size: int) -> bytes:
    """`text` in chunks of `size` bytes: lines are cut anywhere."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def stream_of(num_tokens: int) -> bytes:
    events = [{"choices": [{"text": "é"}]} for _ in range(num_tokens)]
    events.append({"choices": [], "usage": {"completion_tokens": num_tokens}})
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events]
    return b": a comment\n\n" + b"".join(lines) + b"data: [DONE]\n\n"


async def serve_once(
    answer: Callable[[dict[str, object]], bytes], ask: Callable[[str], Awaitable[None]]
) -> int:
    """A server that gives `answer` to every request, while `ask` has its address. Returns its connections."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                writer.write(answer(json.loads(await reader.readexactly(length))))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    return connections


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_streams_are_read_whole_however_they_are_cut(size: int) -> None:
    bodies = []

    def answer(body: dict[str, object]) -> bytes:
        bodies.append(body)
        return HEAD + chunked(stream_of(5), size)

    async def ask(url: str) -> None:
        connection = Connection(url)
        for _ in range(3):
            streamed = await connection.complete("m", Request([7, 8], 5))
            assert (streamed.tokens, streamed.chunks) == (5, 5)
            assert streamed.sent < streamed.first <= streamed.last
        connection.close()

    assert await serve_once(answer, ask) == 1  # kept alive
    assert bodies[0]["prompt"] == [7, 8]
    assert (bodies[0]["max_tokens"], bodies[0]["ignore_eos"], bodies[0]["temperature"]) == (5, True, 0)


async def test_too_few_tokens_and_refusals_are_errors() -> None:
    async def short(url: str) -> None:
        with pytest.raises(RuntimeError, match="5 tokens instead of 6"):
            await Connection(url).complete("m", Request([7], 6))

    await serve_once(lambda _: HEAD + chunked(stream_of(5), 64), short)
    refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\n\r\nno such key"

    async def refused(url: str) -> None:
        with pytest.raises(RuntimeError, match=r"400 Bad Request.*no such key"):
            await Connection(url).complete("m", Request([7], 6))

    await serve_once(lambda _: refusal, refused)


def test_summary_counts_what_the_requests_saw() -> None:
    found = summarise([Streamed(0.0, 0.1, 1.1, 11, 11), Streamed(0.5, 0.8, 2.0, 4, 2)], 64)
    assert found["wall_s"] == 2.0
    assert found["output_tok_s"] == pytest.approx(7.5)
    assert found["ttft_ms_p50"] == pytest.approx(200)
    assert found["tpot_ms_p50"] == pytest.approx((100 + 400) / 2)
    assert found["tokens_per_chunk"] == pytest.approx(15 / 13)


@pytest.mark.slow
def test_octavos_server_from_start_to_stop(tiny: Shape, tmp_path: Path) -> None:
    folder = write_model(tiny, tmp_path)
    write_tokenizer(folder, tiny.vocab_size)
    port, log = free_port(), tmp_path / "server.log"
    command = [*server_command("octavo", folder, port), "--num-blocks", "600"]
    found = serve_and_measure(command, port, tiny, 1, log, start_limit_s=60)
    assert found["ready_s"] > 0
    assert found["runs"][0]["requests"] == 16
    assert found["output_tok_s"] > 0
    assert 0 < found["ttft_ms_p50"] <= found["ttft_ms_p99"]


def test_a_server_that_cannot_start_is_told_at_once(tiny: Shape, tmp_path: Path) -> None:
    command = server_command("octavo", tmp_path / "nowhere", 1)
    with pytest.raises(RuntimeError, match="ended with status"):
        serve_and_measure(command, 1, tiny, 1, tmp_path / "server.log", start_limit_s=60)
