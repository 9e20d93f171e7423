"""Streams of servers that `octavo chat --url` and `octavo bench` read: bytes of others, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from octavo.base.errors import EngineError
from octavo.cli.bench.client import _TimedStream
from octavo.cli.chat.partners import Answer, _pieces
from octavo.cli.http import error_message
from tests.fuzz.mutate import text_mutator
from tests.fuzz.target import Run, Target

WORDS = ("data: ", "data:", "\n\n", "\r\n", "[DONE]", '{"choices":[', '{"delta":{"content":"a"}}', '"usage":',
         "null", "]}",
         '{"prompt_tokens":1,"completion_tokens":2}', '"error":', '{"message":"a"}', '"finish_reason":"stop"',
         ": ping",
         '"prompt_tokens_details":{"cached_tokens":', "1e400", "-1", '"\\ud800"', "event: x\n")  # fmt: skip


def opened(folder: Path) -> Run:
    def run(data: bytes) -> None:
        for size in (len(data) or 1, 1, 1 + len(data) % 7):
            stream = _TimedStream()
            try:
                for start in range(0, len(data), size):
                    stream.feed(data[start : start + size])
            except (msgspec.DecodeError, UnicodeDecodeError):  # Which the client makes a failed outcome of.
                continue
            stream.ended()
        answer = Answer(sent=0.0)
        for line in data.decode("utf-8", "replace").splitlines():
            if line.startswith("data:") and line[5:].strip() != "[DONE]":
                try:
                    "".join(piece.text for piece in _pieces(line[5:], answer))
                except (EngineError, msgspec.DecodeError):
                    break
        assert error_message(500, data)

    return run


def seeds() -> Iterator[bytes]:
    yield b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: {"usage":{"prompt_tokens":1}}\n\n'
    yield b'data: {"choices":[{"text":"hi"}]}\r\n\r\ndata: {"error":{"message":"no"}}\n\ndata: [DONE]\n\n'
    yield b'{"error": {"message": "no", "code": 1}}'


TARGET = Target(open=opened, seeds=seeds, mutate=text_mutator(WORDS), max_bytes=2048)
