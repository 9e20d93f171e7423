"""ScheduleConfig: how much work a step takes, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config.option import option


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How much work a step takes, and in which order."""

    max_num_seqs: int | None = option(None, "Most requests that run at the same time.")
    max_num_batched_tokens: int | None = option(None, "Token budget of one step.")
    enable_chunked_prefill: bool = option(True, "Spread long prompts over several steps.")
    long_prefill_token_threshold: int = option(
        0, "Most prompt tokens of one request in one step; 0 means up to the token budget."
    )
    itl_target_ms: float | None = option(
        None,
        "Milliseconds between two tokens of a stream: while answers are written, prompts come in chunks that "
        "keep to it, as far as the engine's own steps tell. auto means steps as large as the budget.",
    )
    scheduling_policy: str = option(
        "auto",
        "Order of waiting requests: as they came, by priority, or in turns of keys by tokens and weight; "
        "auto is fair where keys have names, else fcfs.",
        choices=("auto", "fcfs", "priority", "fair"),
    )
    async_scheduling: bool | None = option(
        None, "Schedule the next step while the device still computes this one."
    )
    max_num_queued_reqs: int = option(
        4096, "Most requests that wait; one more gets 503 with Retry-After. 0 means no bound."
    )
    max_num_queued_tokens: int = option(
        0, "Most prompt tokens that wait; a request beyond gets 503 with Retry-After. 0 means no bound."
    )
    max_predicted_ttft: float = option(
        600.0,
        "Seconds to the first token, predicted from the queue, beyond which a request gets 503 at once; most "
        "clients give up after 600. 0 means no bound.",
    )
