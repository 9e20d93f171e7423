"""The staging engine on CPU tensors: cuts, strides, conversions, errors, order of progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from octavo.base.errors import ModelFileError
from octavo.weights import transfer as engine
from octavo.weights.transfer import Bytes, Piece, cut, transfer


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bytes a buffer, and several lanes even on one CPU."""
    monkeypatch.setattr(engine, "BUFFER_BYTES", 64)
    monkeypatch.setattr(engine, "_usable_cpus", lambda: 4)


def pieces_of(source: torch.Tensor, target: torch.Tensor) -> Iterator[Piece]:
    flat = source.contiguous().view(-1)
    for part, first in cut(target, source.element_size()):
        wanted = flat[first : first + part.numel()].view(torch.uint8).numpy()

        def fill(room: Bytes, wanted: Bytes = wanted) -> None:
            room[:] = wanted

        yield Piece(target=part, dtype=source.dtype, fill=fill)


SHAPES = [(), (0,), (1,), (5,), (16,), (17,), (100,), (7, 3), (4, 40), (2, 3, 33), (3, 0), (1, 1, 50)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_item_arrives_once(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    source = torch.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape).to(dtype)
    target = torch.full(shape, -1.0)
    pieces = list(pieces_of(source, target))
    assert all(0 < piece.num_bytes <= 64 for piece in pieces)
    transfer(pieces)
    assert torch.equal(target, source.float())


def test_targets_of_any_strides() -> None:
    """Column ranges of a transposed matrix (the CPU's fused weights) and row ranges (the GPU's)."""
    weight_IO = torch.full((9, 30), -1.0, dtype=torch.float16)
    first, second = torch.randn(12, 9), torch.randn(18, 9)
    targets = [weight_IO[:, :12].t(), weight_IO[:, 12:].t()]
    transfer([*pieces_of(first, targets[0]), *pieces_of(second, targets[1])])
    assert torch.equal(weight_IO, torch.cat([first, second]).t().half())
    weight_OI = torch.zeros(30, 9)
    transfer([*pieces_of(first, weight_OI[:12]), *pieces_of(second, weight_OI[12:])])
    assert torch.equal(weight_OI, torch.cat([first, second]))


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        parameter = torch.nn.Parameter(torch.zeros(40), requires_grad=False)
        transfer(list(pieces_of(torch.ones(40), parameter)))
    assert parameter.sum() == 40


def test_progress_comes_in_order_and_in_the_caller() -> None:
    source, target = torch.randn(1000), torch.empty(1000)
    seen: list[tuple[int, int]] = []
    threads: set[threading.Thread] = set()

    def note(done: int, total: int) -> None:
        seen.append((done, total))
        threads.add(threading.current_thread())

    transfer(list(pieces_of(source, target)), note)
    assert seen[-1] == (4000, 4000)
    assert seen == sorted(seen)
    assert threads == {threading.current_thread()}


def test_pieces_are_filled_side_by_side() -> None:
    """Two pieces that wait for each other: one thread would never end."""
    meeting = threading.Barrier(2, timeout=10)
    target = torch.empty(32)

    def fill(room: Bytes) -> None:
        meeting.wait()
        room[:] = 0

    transfer([Piece(target=part, dtype=torch.float32, fill=fill) for part in target.split(16)])
    assert target.count_nonzero() == 0


def test_the_first_error_stops_the_rest() -> None:
    calls: list[int] = []

    def fill(room: Bytes) -> None:
        calls.append(1)
        raise ModelFileError("short")

    target = torch.empty(16 * 1000)
    with pytest.raises(ModelFileError, match="short"):
        transfer([Piece(target=part, dtype=torch.float32, fill=fill) for part in target.split(16)])
    assert len(calls) <= 4, "at most one piece per lane"


def test_an_interrupted_caller_stops_the_lanes() -> None:
    calls: list[int] = []

    def fill(room: Bytes) -> None:
        calls.append(1)
        room[:] = 0

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    target = torch.empty(16 * 100_000)
    with pytest.raises(KeyboardInterrupt):
        pieces = [Piece(target=part, dtype=torch.float32, fill=fill) for part in target.split(16)]
        transfer(pieces, interrupt)
    assert len(calls) < 100_000


def test_nothing_to_do() -> None:
    transfer([])
