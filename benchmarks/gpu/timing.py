"""Timing on the GPU: many calls captured in one graph, so that the host is not in the numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch


def graph_time_us(calls: Sequence[Callable[[], object]], *, replays: int = 10) -> float:
    """Median microseconds per call when `calls` run one after the other in a CUDA graph.

    Give calls that work on different buffers, together larger than the L2 (50 MB on an H100), or the
    cache answers instead of the memory.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(replays):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / len(calls))
    return statistics.median(times)
