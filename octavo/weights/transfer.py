"""From anywhere to a device: threads fill staging buffers while earlier ones are still being copied.

A `Piece` says how many bytes go where and who writes them: a file, a dequantiser. Each thread is a lane of
its own, with two buffers and, on a GPU, its own stream, so lanes never wait for each other. Buffers are
pinned there, so that the copy runs beside the next read; memory is bounded by lanes times buffers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import torch

from octavo.base.integers import ceil_div

Bytes = npt.NDArray[np.uint8]
OnProgress = Callable[[int, int], None]
"""(bytes read so far, bytes of all)."""

MAX_LANES = 8
"""Reading from the page cache takes about this many threads to keep up with a PCIe 5 link."""
BUFFER_BYTES = 16 * 2**20
"""Long enough that starting a read and a copy costs nothing beside them."""
BUFFERS_PER_LANE = 2
"""One is filled while the other is copied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a tensor, small enough for one buffer."""

    target: torch.Tensor
    """Where it goes; any device, type and strides."""
    dtype: torch.dtype
    """What `fill` writes; converted on the way into `target`, on its device."""
    fill: Callable[[Bytes], None]
    """Writes the piece, row-major. Called in a thread; should hold the GIL as little as it can."""

    @property
    def num_bytes(self) -> int:
        return self.target.numel() * self.dtype.itemsize


def cut(target: torch.Tensor, item_bytes: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield (part, its first item in row-major order), each part at most a buffer of `item_bytes` items.

    Parts are whole rows, so that a target may have any strides; rows that are too long are cut themselves.
    """
    most = BUFFER_BYTES // item_bytes
    if target.numel() <= most:
        if target.numel():
            yield target, 0
        return
    row_items = target.numel() // len(target)
    if row_items > most:
        for index, row in enumerate(target):
            for part, first in cut(row, item_bytes):
                yield part, index * row_items + first
        return
    step = most // row_items
    for start in range(0, len(target), step):
        yield target[start : start + step], start * row_items


def transfer(pieces: Sequence[Piece], on_progress: OnProgress | None = None) -> None:
    """Fill every target; all are on one device, and complete on return.

    `on_progress` is called in this thread. The first error of any piece stops all lanes and is raised here.
    """
    if not pieces:
        return
    device = pieces[0].target.device
    todo, done = deque(pieces), SimpleQueue[int | None]()
    total = sum(piece.num_bytes for piece in pieces)
    num_lanes = min(MAX_LANES, _usable_cpus(), len(pieces), ceil_div(total, BUFFER_BYTES))
    began = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
    with ThreadPoolExecutor(num_lanes, thread_name_prefix="weights") as threads:
        lanes = [threads.submit(_run_lane, todo, done, device, began) for _ in range(num_lanes)]
        try:
            _report(done, num_lanes, total, on_progress)
        finally:
            todo.clear()  # of no effect unless we are interrupted: then no lane begins another piece
    for lane in lanes:
        lane.result()


def _report(done: SimpleQueue[int | None], running: int, total: int, on_progress: OnProgress | None) -> None:
    """Pass progress on until every lane has ended."""
    finished = 0
    while running:
        num_bytes = done.get()
        if num_bytes is None:
            running -= 1
            continue
        finished += num_bytes
        if on_progress is not None:
            on_progress(finished, total)


def _run_lane(
    todo: deque[Piece], done: SimpleQueue[int | None], device: torch.device, began: torch.cuda.Event | None
) -> None:
    try:
        # Threads start outside of the caller's grad and inference modes; targets may be parameters.
        with torch.inference_mode(), _own_stream(device, began):
            for piece, buffer in zip(_take(todo), cycle(_buffers(device)), strict=False):
                buffer.send(piece)
                done.put(piece.num_bytes)
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()
    finally:
        todo.clear()  # empty already, unless this lane failed: then the others stop too
        done.put(None)


def _own_stream(device: torch.device, began: torch.cuda.Event | None) -> AbstractContextManager[object]:
    """A stream that starts where the caller's stood: what the caller enqueued may still read the targets."""
    if began is None:
        return nullcontext()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_event(began)
    return torch.cuda.stream(stream)


def _take(todo: deque[Piece]) -> Iterator[Piece]:
    while True:
        try:
            piece = todo.popleft()
        except IndexError:
            return
        yield piece


def _buffers(device: torch.device) -> list[_Buffer]:
    return [_Buffer(device) for _ in range(BUFFERS_PER_LANE)]


class _Buffer:
    """Staging memory of one lane."""

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._bytes = torch.empty(BUFFER_BYTES, dtype=torch.uint8, pin_memory=is_cuda)
        self._copied = torch.cuda.Event(blocking=True) if is_cuda else None  # type: ignore[no-untyped-call]

    def send(self, piece: Piece) -> None:
        """Fill and start the copy; waits for the copy that this buffer is still part of."""
        if self._copied is not None:
            self._copied.synchronize()
        room = self._bytes[: piece.num_bytes]
        piece.fill(room.numpy())
        staged = room.view(piece.dtype).view(piece.target.shape)
        # Not blocking, so torch converts type and strides on the device, from a contiguous temporary there.
        piece.target.copy_(staged, non_blocking=True)
        if self._copied is not None:
            self._copied.record()


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
