"""Which steps run in which graph, and in which order graphs are captured. The graphs are made up: no GPU."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from octavo.attention.step_view import HostView
from octavo.worker import graphs
from octavo.worker.graph_sizes import graph_sizes, mixed_sizes, shared_sizes, single_sizes
from octavo.worker.graphs import StepGraphs
from octavo.worker.step_batch import StepBatch
from octavo.worker.step_buffers import StepBounds

WIDTH = 3


class Graph:
    """Remembers the bounds it was captured with and how often it ran."""

    def __init__(self) -> None:
        self.bounds: StepBounds | None = None
        self.num_replays = 0

    def capture_begin(self, **_: Any) -> None:
        Recorder.current = self

    def capture_end(self) -> None:
        Recorder.current = None

    def replay(self) -> None:
        self.num_replays += 1


class Recorder:
    """Stands in for Forward."""

    current: Graph | None = None
    mode = "default"
    """Whether waiting for the device is an error."""
    waits = False

    def run_bounded(self, bounds: StepBounds, host: HostView | None) -> torch.Tensor:
        assert host is None, "a capture does not know what its replays bring"
        assert Recorder.current is not None or self.mode == "error", "captured, or tried before"
        if Recorder.current is not None:
            Recorder.current.bounds = bounds
        elif self.waits:
            raise RuntimeError("called a synchronizing CUDA operation\nsomewhere")
        return torch.zeros(bounds.num_tokens, WIDTH)


class Stream:
    def __init__(self, *_: Any) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> StepGraphs:
    fake = SimpleNamespace(
        CUDAGraph=Graph,
        Stream=Stream,
        graph_pool_handle=lambda: None,
        current_stream=Stream,
        stream=lambda stream: stream,
        get_sync_debug_mode=lambda: Recorder.mode,
        set_sync_debug_mode=partial(setattr, Recorder, "mode"),
    )
    monkeypatch.setattr(graphs.torch, "cuda", fake)
    return StepGraphs(
        Recorder(),  # type: ignore[arg-type]
        max_seqs=40,
        max_tokens=100,
        width=WIDTH,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def step(*num_tokens: int, num_shared_blocks: int = 0, num_long: int = 0) -> StepBatch:
    starts = [sum(num_tokens[:i]) for i in range(len(num_tokens) + 1)]
    return StepBatch(
        rows=list(range(len(num_tokens))),
        num_tokens=list(num_tokens),
        first_positions=[0] * len(num_tokens),
        view=HostView(query_starts=starts, lengths=list(num_tokens), num_paged=len(num_tokens) - num_long),
        num_singles=sum(count == 1 for count in num_tokens),
        num_shared_blocks=num_shared_blocks,
        sampling=[],
        sample_rows=[],
    )


def ran(made: StepGraphs) -> list[StepBounds]:
    kinds = (made._singles, made._shared, made._mixed)
    return [g.bounds for kind in kinds for g in kind.graphs.values() for _ in range(g.num_replays)]  # type: ignore[attr-defined]


def test_a_step_runs_in_the_smallest_graph_that_holds_it(made: StepGraphs) -> None:
    made.capture_all()
    assert made.is_complete and len(made) == len(graph_sizes(40, 100))
    for batch, expected in (
        (step(1), StepBounds(1, 1, 1, False, False)),
        (step(*[1] * 5), StepBounds(8, 8, 8, False, False)),
        (step(*[1] * 39), StepBounds(40, 40, 40, False, False)),
        (step(*[1] * 20, num_shared_blocks=3), StepBounds(24, 24, 24, False, True)),
        (step(1, 9), StepBounds(16, 16, 16, True, False)),
        (step(1, 9, 60), StepBounds(96, 40, 40, True, False)),  # more tokens than sequences
    ):
        for kind in (made._singles, made._shared, made._mixed):
            for graph in kind.graphs.values():
                graph.num_replays = 0  # type: ignore[attr-defined]
        hidden_TE = made.run(batch)
        assert hidden_TE is not None and hidden_TE.shape == (batch.total_tokens, WIDTH)
        assert ran(made) == [expected]


def test_a_model_that_waits_for_the_device_runs_without_graphs(
    made: StepGraphs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Recorder, "waits", True)
    made.capture_all()
    assert made.is_complete and not len(made)
    assert made.run(step(1)) is None
    assert Recorder.mode == "default"
    [record] = caplog.records
    assert record.getMessage().endswith("run without, slower: called a synchronizing CUDA operation")


def test_what_no_graph_holds_runs_without(made: StepGraphs) -> None:
    made.capture_all()
    assert made.run(step(97)) is None
    assert made.run(step(1, 20, num_long=1)) is None, "a long prompt has a form of its own"


def test_graphs_captured_while_serving_serve_at_once(made: StepGraphs) -> None:
    assert made.run(step(1, 90)) is None and len(made) == 0
    made.capture_next()
    assert not made.is_complete
    assert made.run(step(1, 90)) is not None, "the largest comes first"
    assert made.run(step(1)) is None
    while not made.is_complete:
        made.capture_next()
    made.capture_next()
    assert len(made) == len(graph_sizes(40, 100))
    assert made.run(step(1)) is not None


def test_without_memory_what_is_captured_serves_and_the_rest_runs_without(
    made: StepGraphs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made.capture_next()

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Recorder, "run_bounded", run_out)
    with caplog.at_level("WARNING"):
        made.capture_all()
    assert made.is_complete and len(made) == 1
    assert f"{len(graph_sizes(40, 100)) - 1} of the graphs" in caplog.text
    assert made.run(step(1, 90)) is not None
    assert made.run(step(1)) is None


@pytest.mark.parametrize("max_seqs", [1, 2, 5, 64, 100, 1024])
def test_every_number_of_sequences_has_a_graph(max_seqs: int) -> None:
    sizes = single_sizes(max_seqs)
    assert sizes == sorted(set(sizes)) and sizes[-1] == max_seqs
    assert set(shared_sizes(max_seqs)) <= set(sizes)
    assert all(size <= 500 for size in mixed_sizes(500))


@pytest.mark.parametrize("max_seqs", [1, 3, 15, 16, 40, 1024])
def test_warm_up_stays_within_the_buffers(max_seqs: int) -> None:
    pytest.importorskip("triton")
    from octavo.worker.warm_up import _bounds

    bounds = _bounds(max_seqs, 2048)
    assert all(bound.num_seqs <= max_seqs and bound.num_tokens <= 2048 for bound in bounds)
    assert any(bound.shares_prefix for bound in bounds) == (max_seqs >= 16)
    assert {bound.num_tokens for bound in bounds if not bound.has_chunks} >= {1, max_seqs}


@pytest.mark.parametrize("max_tokens", [1, 32, 2048])
def test_warm_up_runs_no_step_that_the_buffers_do_not_hold(
    monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    pytest.importorskip("triton")
    from octavo.worker import warm_up as module

    monkeypatch.setattr(module, "record", lambda _: [])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    forward, others = Mock(long_prompt=None), Mock(device=torch.device("cpu"), num_known=[0])
    module.warm_up(
        Mock(), forward, others, others, others, width=4, dtype=torch.float32, max_tokens=max_tokens
    )
    steps = [call.args for call in forward.run_bounded.call_args_list]
    assert max(bounds.num_tokens for bounds, _ in steps) == max_tokens
    assert all(host is None or host.lengths == [bounds.num_tokens] for bounds, host in steps)


@pytest.mark.parametrize("max_seqs", [1, 3, 16, 40, 150, 1024])
@pytest.mark.parametrize("max_tokens", [48, 100, 150, 500, 2048, 8192])
def test_warm_up_meets_every_form_that_graphs_take(max_seqs: int, max_tokens: int) -> None:
    """Products of experts have kernels by the number of tokens; none may be compiled in a capture."""
    pytest.importorskip("triton")
    from octavo.ops.triton.expert_tiles import form_for
    from octavo.worker.warm_up import _bounds

    max_seqs = min(max_seqs, max_tokens)
    warm = {form_for(bound.num_tokens).name for bound in _bounds(max_seqs, max_tokens)}
    captured = {form_for(size).name for size in graph_sizes(max_seqs, max_tokens)}
    assert captured | {form_for(max_tokens).name} <= warm
