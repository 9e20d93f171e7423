"""Files of batches: lines one by one, the wrong ones refused by name and the others kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from octavo.base.errors import RequestError
from octavo.server.openai.batches.lines import ENDPOINTS, custom_id_of, parse_line, read_lines
from tests.fuzz.mutate import bytes_mutator, json_mutator
from tests.fuzz.target import Run, Target

MAX_LINE = 2048
_LINE = json_mutator(
    ["custom_id", "method", "url", "body", "POST", *ENDPOINTS, "stream", "background", "messages"]
)
_BYTES = bytes_mutator(
    [b"\n", b"\r\n", b"\xef\xbb\xbf", b"\0", b'{"custom_id":"a"', b"}", b'"body":', b" " * 300]
)


def opened(folder: Path) -> Run:
    path = folder / "lines.jsonl"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        numbers = []
        for raw in read_lines(path, MAX_LINE):
            numbers.append(raw.number)
            custom_id_of(raw)
            try:
                line = parse_line(raw, ENDPOINTS)
            except RequestError:
                continue
            assert line.custom_id == custom_id_of(raw) and line.body.startswith(b"{")
        assert numbers == sorted(set(numbers))

    return run


def mutate(data: bytes, rng: Random) -> bytes:
    lines = data.split(b"\n")
    if rng.random() < 0.3:
        return _BYTES(data, rng)
    index = rng.randrange(len(lines))
    lines[index] = _LINE(lines[index], rng)
    return b"\n".join(lines)


def seeds() -> Iterator[bytes]:
    def line(name: str, url: str = ENDPOINTS[0]) -> bytes:
        body = {"messages": [{"role": "user", "content": name}], "max_tokens": 4}
        return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}).encode() + b"\n"

    yield line("a") + line("b")
    yield line("a") + b"\nnot json\n" + line("c", ENDPOINTS[1])


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=8192)
