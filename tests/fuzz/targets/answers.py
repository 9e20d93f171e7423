"""What models write, through every protocol's answers: streamed and whole, with tools and reasoning.

A model may be made to say anything. Its answer may not break the stream, the JSON, or the server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from octavo.engine.outputs import CompletionOutput, RequestOutput
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.server.app import create_app
from tests.fuzz.doors import Door
from tests.fuzz.target import Run, Target
from tests.fuzz.targets.tool_parsers import mutate
from tests.server.parsing.parsing_samples import SAMPLES, WEATHER
from tests.server.server_fakes import FakeEngine, fake_config

FORMATS = ("hermes", "llama3", "mistral", "qwen3-coder", "deepseek-v3", "gpt-oss", "gemma3", "json")
CHAT = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
OF_RESPONSES = {"type": "function", "name": "get_weather", "parameters": WEATHER}
OF_ANTHROPIC = {"name": "get_weather", "input_schema": WEATHER}
CALLS = [
    ("/v1/chat/completions", {"messages": CHAT, "tools": [TOOL]}),
    ("/v1/responses", {"input": "hi", "tools": [OF_RESPONSES], "store": False}),
    ("/v1/messages", {"model": "fake", "messages": CHAT, "max_tokens": 99, "tools": [OF_ANTHROPIC]}),
    ("/api/chat", {"model": "fake", "messages": CHAT, "tools": [TOOL]}),
    ("/v1/chat/completions", {"messages": CHAT}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/generate", {"inputs": "hi"}),
]


@dataclass
class SpeakingEngine(FakeEngine):
    """Every answer is `script`, in pieces of `piece` characters."""

    script: str = ""
    piece: int = 3

    async def _stream(
        self, prompt: list[int], params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        size = len(self.script) if params.output_kind is RequestOutputKind.FINAL_ONLY else self.piece
        starts = range(0, len(self.script), size or 1)
        pieces = [self.script[start : start + size] for start in starts] or [""]
        for number, text in enumerate(pieces, 1):
            is_last = number == len(pieces)
            part = CompletionOutput(
                index=0,
                text=text,
                token_ids=[65],
                finish_reason="stop" if is_last else None,
                stop_reason=None,
            )
            yield RequestOutput(
                request_id=request_id, prompt=None, prompt_token_ids=prompt, outputs=[part], finished=is_last
            )


def opened(folder: Path) -> Run:
    """Three bytes stand before the answer: format of calls, route and whether it streams, size of pieces."""
    loop = asyncio.new_event_loop()
    doors = []
    for tools in FORMATS:
        engine = SpeakingEngine(fake_config(tool_call_parser=tools))
        app = create_app(engine, engine.config.server, engine.config.observe)
        doors.append((engine, Door(app, [], lambda engine=engine: engine.num_open, loop)))

    def run(data: bytes) -> None:
        if len(data) < 3:
            return
        engine, door = doors[data[0] % len(doors)]
        engine.script = data[3:].decode("utf-8", "replace")
        engine.piece = 1 + data[2] % 9
        path, body = CALLS[data[1] // 2 % len(CALLS)]
        status, said = loop.run_until_complete(
            door.post(path, json.dumps({**body, "stream": data[1] % 2 == 1}).encode())
        )
        assert status == 200, said

    return run


def seeds() -> Iterator[bytes]:
    for number, name in enumerate(FORMATS):
        text = SAMPLES[name][0] if name in SAMPLES else "<think>a</think>b"
        for route in range(2 * len(CALLS)):
            yield bytes([number, route, number]) + text.encode()
    for route in range(2 * len(CALLS)):
        yield bytes([0, route, 1]) + b"\0 \xe2\x80\xa8 data: [DONE]\n\n event: x"


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=2048)
