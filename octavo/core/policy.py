"""What the schedule's options mean for the core: which limits are asked and in which order requests wait."""

from __future__ import annotations

from octavo.config.schedule import ScheduleConfig
from octavo.core.fair_queue import FairQueue, ShareMeter
from octavo.core.latency_budget import LatencyBudget
from octavo.core.limits import ChunkSize, LengthLimit, Limit, TokenBudget, WholePrompt
from octavo.core.queue_bound import Bounds
from octavo.core.queues import RankedQueue, WaitingQueue
from octavo.core.request import Rank
from octavo.core.step_budget import StepBudget


def make_waiting(policy: str) -> WaitingQueue:
    """An empty queue for this policy."""
    return FairQueue() if policy == "fair" else RankedQueue()


def make_rank(policy: str, priority: int, number: int) -> Rank:
    """Smaller goes first. `number` counts arrivals; the priority matters only under the priority policy."""
    return (priority if policy == "priority" else 0, number)


def make_budget(schedule: ScheduleConfig, most: int) -> StepBudget:
    """How many tokens each step may compute, at most `most`."""
    if schedule.itl_target_ms is None:
        return StepBudget(most)
    return LatencyBudget(most, schedule.itl_target_ms / 1000)


def queue_bounds(schedule: ScheduleConfig) -> Bounds:
    """How much may wait."""
    seqs, step_tokens = schedule.max_num_seqs, schedule.max_num_batched_tokens
    assert seqs is not None and step_tokens is not None, "the schedule is resolved before the engine is built"
    queued = schedule.max_num_queued_reqs
    return Bounds(
        max_requests=queued + seqs if queued else 0,
        max_tokens=schedule.max_num_queued_tokens,
        max_wait_s=schedule.max_predicted_ttft,
        step_tokens=step_tokens,
        num_rows=seqs,
        is_fair=schedule.scheduling_policy == "fair",
    )


def make_limits(schedule: ScheduleConfig, *, depth: int) -> list[Limit]:
    """The limits that can ever say no under this configuration, in the order they are asked."""
    limits: list[Limit] = []
    if depth > 1:
        limits.append(LengthLimit())
    if not schedule.enable_chunked_prefill:
        limits.append(WholePrompt())
    elif schedule.long_prefill_token_threshold > 0:
        limits.append(ChunkSize(schedule.long_prefill_token_threshold))
    limits.append(TokenBudget())
    if schedule.scheduling_policy == "fair":
        limits.append(ShareMeter())
    return limits
