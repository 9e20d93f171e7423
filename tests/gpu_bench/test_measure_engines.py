"""Arithmetic of the measurements, on an engine whose clock is made up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.gpu.measure import (
    check_count,
    full_batch,
    full_batch_gaps_ms,
    quantile,
    single_stream,
    throughput,
)
from benchmarks.gpu.workloads import Request


class ScriptedEngine:
    """Answers with prepared times, and notes what it was asked."""

    def __init__(self, times: list[list[float]], walls: Sequence[float] = ()) -> None:
        self.times = times
        self.walls = list(walls)
        self.calls: list[str] = []

    def offline(self, batch: Sequence[Request]) -> float:
        self.calls.append(f"offline {batch[0].prompt_token_ids[0]}")
        return self.walls.pop(0)

    def stepped(self, batch: Sequence[Request]) -> list[list[float]]:
        self.calls.append(f"stepped {batch[0].prompt_token_ids[0]}")
        return self.times

    def reset_cache(self) -> None:
        self.calls.append("reset")


def make(rep: int) -> list[Request]:
    return [Request([rep, 5, 5], 4), Request([rep, 6], 4)]


def test_throughput_takes_the_median_wall_and_empties_the_cache_each_time() -> None:
    engine = ScriptedEngine([], [4.0, 1.0, 2.0])
    found = throughput(engine, make, 3)
    assert engine.calls == ["reset", "offline 0", "reset", "offline 1", "reset", "offline 2"]
    assert found["wall_s"] == [4.0, 1.0, 2.0]
    assert (found["wall_s_median"], found["output_tok_s"], found["input_tok_s"]) == (2.0, 4.0, 2.5)


def test_single_stream_leaves_the_first_token_out_of_the_gaps() -> None:
    found = single_stream(ScriptedEngine([[1.0, 1.1, 1.2, 1.7]]), make, 2)
    assert found["ttft_ms_median"] == pytest.approx(1000)
    assert found["ms_per_token_median"] == pytest.approx(100)
    assert found["ms_per_token_p99"] == pytest.approx(500)


def test_full_batch_counts_only_steps_that_all_share() -> None:
    early = [1.0, 2.0, 3.0, 4.0]
    late = [2.0, 3.0, 4.0, 9.0]
    assert full_batch_gaps_ms([early, late]) == pytest.approx([1000, 1000])
    found = full_batch(ScriptedEngine([early, late]), make, 1)
    assert found["wall_s_median"] == 9.0
    assert found["full_batch_steps_seen"] == 2
    assert found["decode_only_output_tok_s"] == pytest.approx(2.0)


def test_a_crowd_that_never_ran_together_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="max_num_seqs"):
        full_batch(ScriptedEngine([[1.0, 2.0], [3.0, 4.0]]), make, 1)


def test_an_engine_that_stops_early_is_found_out() -> None:
    check_count(Request([1], 4), 4)
    with pytest.raises(RuntimeError, match="3 tokens instead of 4"):
        check_count(Request([1], 4), 3)


def test_quantile_is_by_rank() -> None:
    assert quantile(range(100), 0.99) == 99
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
