"""How an engine is timed: throughput, one stream, decode at full batch. Engines come behind a small protocol.

Before every timed run the prefix cache is emptied and the token ids are fresh. Medians count.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks.gpu.workloads import WARM_UP_REP, Request, counts, requests

MakeRequests = Callable[[int], list[Request]]
"""Repetition number to requests."""


class Engine(Protocol):
    """An engine that is ready. Every request gets exactly `output_len` greedy tokens, or it raises."""

    def offline(self, batch: Sequence[Request]) -> float:
        """Hand over all requests at once; seconds until all outputs are there."""

    def stepped(self, batch: Sequence[Request]) -> list[list[float]]:
        """The same, step by step: for each request, when each of its tokens arrived, in seconds."""

    def reset_cache(self) -> None:
        """Forget all prefixes."""


def measure(engine: Engine, name: str, vocab_size: int, reps: int) -> dict[str, Any]:
    """Time workload W1 to W5."""
    how = {"W2": single_stream, "W5": full_batch}.get(name, throughput)
    return how(engine, lambda rep: requests(name, vocab_size, rep), reps)


def warm_up(engine: Engine, vocab_size: int) -> None:
    """Every kind of step once: long prompts, a mixed crowd, one stream."""
    engine.offline(requests("W5", vocab_size, WARM_UP_REP)[:64] + requests("W3", vocab_size, WARM_UP_REP)[:2])
    engine.offline(requests("W1", vocab_size, WARM_UP_REP)[:300])
    engine.stepped(requests("W2", vocab_size, WARM_UP_REP))


def throughput(engine: Engine, make: MakeRequests, reps: int) -> dict[str, Any]:
    """Wall time from handing over all requests to holding all outputs."""
    walls = []
    for rep in range(reps):
        engine.reset_cache()
        walls.append(engine.offline(make(rep)))
    return _rates(counts(make(0)), walls)


def single_stream(engine: Engine, make: MakeRequests, reps: int) -> dict[str, Any]:
    """Gaps between the tokens of one request, all repetitions together."""
    first_ms, gaps_ms = [], []
    for rep in range(reps):
        engine.reset_cache()
        (times,) = engine.stepped(make(rep))
        first_ms.append(times[0] * 1e3)
        gaps_ms += _gaps_ms(times)
    return {
        "ttft_ms": first_ms,
        "ttft_ms_median": statistics.median(first_ms),
        "ms_per_token_median": statistics.median(gaps_ms),
        "ms_per_token_mean": statistics.mean(gaps_ms),
        "ms_per_token_p99": quantile(gaps_ms, 0.99),
    }


def full_batch(engine: Engine, make: MakeRequests, reps: int) -> dict[str, Any]:
    """Gaps between steps while every request of the batch decodes; the wall ends with the last token."""
    walls, gaps_ms, firsts = [], [], []
    for rep in range(reps):
        engine.reset_cache()
        times = engine.stepped(make(rep))
        walls.append(max(arrivals[-1] for arrivals in times))
        firsts.append(max(arrivals[0] for arrivals in times))
        gaps_ms += full_batch_gaps_ms(times)
    batch = counts(make(0))
    if not gaps_ms:
        raise RuntimeError(
            f"the {batch['requests']} requests never decoded all together; raise the engine's max_num_seqs"
        )
    step_ms = statistics.median(gaps_ms)
    return {
        **_rates(batch, walls),
        "ms_per_step_full_batch_median": step_ms,
        "ms_per_step_full_batch_mean": statistics.mean(gaps_ms),
        "ms_per_step_full_batch_p99": quantile(gaps_ms, 0.99),
        "full_batch_steps_seen": len(gaps_ms),
        "all_first_tokens_s": statistics.median(firsts),
        "decode_only_output_tok_s": batch["requests"] / step_ms * 1e3,
    }


def full_batch_gaps_ms(times: Sequence[Sequence[float]]) -> list[float]:
    """Gaps of the first request between the last first token and the first last token of all."""
    start = max(arrivals[0] for arrivals in times)
    end = min(arrivals[-1] for arrivals in times)
    return _gaps_ms([time for time in times[0] if start <= time <= end])


def check_count(request: Request, count: int) -> None:
    """An engine that stops early would look fast."""
    if count != request.output_len:
        raise RuntimeError(f"a request got {count} tokens instead of {request.output_len}")


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed, by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _gaps_ms(times: Sequence[float]) -> list[float]:
    return [(later - earlier) * 1e3 for earlier, later in itertools.pairwise(times)]


def _rates(batch: dict[str, int], walls: list[float]) -> dict[str, Any]:
    wall = statistics.median(walls)
    return {
        **batch,
        "wall_s": walls,
        "wall_s_median": wall,
        "output_tok_s": batch["output_tokens"] / wall,
        "input_tok_s": batch["input_tokens"] / wall,
        "total_tok_s": (batch["input_tokens"] + batch["output_tokens"]) / wall,
    }
