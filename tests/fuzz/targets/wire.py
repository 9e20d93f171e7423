"""Messages between engine and core: bytes that are none are typed errors, those that are come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from octavo.config.root import EngineConfig
from octavo.messages.params import SamplingParams
from octavo.messages.request import AbortRequest, EngineRequest, PrefixPin, Terms
from octavo.messages.result import CoreStats, FinishReason, RequestDelta
from octavo.messages.seal import TO_CORE, BrokenSeal, Seal
from octavo.messages.start import StartCore
from octavo.messages.wire import CoreBusy, CoreFailed, CoreUpdate, FromCore, OrderDone, Ping, Sleep, ToCore
from tests.fuzz.mutate import bytes_mutator, json_mutator
from tests.fuzz.target import Run, Target

REQUEST = EngineRequest(
    request_id="r", prompt_token_ids=[1, 2, 3], params=SamplingParams(temperature=0.5, stop_token_ids=[4]),
    max_tokens=5, eos_token_ids=[0], random_key=7, arrival_time=1.5, pins=[PrefixPin(1, 2.0)],
    terms=Terms("t", 1.0, 9.0),
)  # fmt: skip
DELTA = RequestDelta(request_id="r", token_ids=[1], finish_reason=FinishReason.STOP)
KINDS: list[Any] = [ToCore, FromCore, StartCore]
KEY = bytes(range(32))


def opened(folder: Path) -> Run:
    """The first byte says whose message it is meant to be, or that it is a sealed frame."""
    decoders = [msgspec.msgpack.Decoder(kind) for kind in KINDS]

    def run(data: bytes) -> None:
        if not data:
            return
        if data[0] % 4 == 3:
            _open_frame(data[1:])
            return
        decoder = decoders[data[0] % 4]
        try:
            message = decoder.decode(data[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        assert repr(decoder.decode(msgspec.msgpack.encode(message))) == repr(message)

    return run


def _open_frame(frame: bytes) -> None:
    """Only what was sealed with the key comes through, once."""
    seal = Seal(KEY, TO_CORE)
    try:
        message = seal.open(frame)
    except BrokenSeal:
        return
    assert frame == Seal(KEY, TO_CORE).close(bytes(message))
    with suppress(BrokenSeal):
        seal.open(frame)
        raise AssertionError("a frame came through twice")


_BYTES = bytes_mutator(
    [
        b"\xc0",
        b"\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 64,
    ]
)
_FIELDS = json_mutator(
    ["type", *EngineRequest.__struct_fields__, *SamplingParams.__struct_fields__, "request", "update"]
)


def mutate(data: bytes, rng: Random) -> bytes:
    """Mostly fields of a message, put into msgpack again."""
    head, body = data[:1], data[1:]
    if rng.random() < 0.6:
        with suppress(Exception):
            fields = _FIELDS(msgspec.json.encode(msgspec.msgpack.decode(body)), rng)
            return head + msgspec.msgpack.encode(msgspec.json.decode(fields))
    return head + _BYTES(body, rng)


def seeds() -> Iterator[bytes]:
    to_core = (REQUEST, AbortRequest(request_ids=["r"]), Ping(), Sleep(1))
    stats = CoreStats(num_running=1, num_blocks=2, num_free_blocks=1, prompt_tokens=3, generation_tokens=4)
    failed = CoreFailed(error="EngineError", code="INTERNAL", message="a")
    from_core = (
        CoreUpdate(deltas=[DELTA], stats=stats),
        failed,
        CoreBusy(doing="a"),
        OrderDone(failure=failed),
    )
    start = (StartCore(config=EngineConfig(), path="a"),)
    yield b"\x03" + Seal(KEY, TO_CORE).close(b"a message")
    for index, messages in enumerate((to_core, from_core, start)):
        for message in messages:
            yield bytes([index]) + msgspec.msgpack.encode(message)


TARGET = Target(open=opened, seeds=seeds, mutate=mutate)
