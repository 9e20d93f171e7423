"""Every metric: name, kind, help, labels, buckets. Names are vLLM's, so stock dashboards and routers work.

Names here are without prefix; `http_requests` is the one that never gets one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

BASE_LABELS = ("model_name", "engine")

SECONDS_SHORT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    640.0,
    2560.0,
)
SECONDS_TOKEN = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
SECONDS_LONG = (
    0.05,
    0.1,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
    960.0,
    1920.0,
    7680.0,
)
TOKENS = tuple(float(2**power) for power in range(21))
STEP_TOKENS = tuple(float(2**power) for power in range(15))
SECONDS_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SAMPLES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class MetricSpec:
    """One row of the table. `unit` is what a value of one means; `source` names the field of the core's stats
    that a scrape reads, if any."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    source: str | None = None


METRICS: tuple[MetricSpec, ...] = (
    # Read from the core's stats at each scrape.
    MetricSpec(
        "num_requests_running", "gauge", "requests", "Requests in the running batch.", source="num_running"
    ),
    MetricSpec("num_requests_waiting", "gauge", "requests", "Requests that wait.", source="num_waiting"),
    MetricSpec(
        "kv_cache_usage_perc",
        "gauge",
        "share, 0 to 1",
        "Share of KV blocks held by requests; 1 is all.",
        source="kv_usage",
    ),
    MetricSpec(
        "prefix_cache_queries",
        "counter",
        "tokens",
        "Prompt tokens looked up in the prefix cache.",
        source="prefix_queries_tokens",
    ),
    MetricSpec(
        "prefix_cache_hits",
        "counter",
        "tokens",
        "Prompt tokens found in the prefix cache.",
        source="prefix_hits_tokens",
    ),
    MetricSpec(
        "num_preemptions",
        "counter",
        "preemptions",
        "Times a request gave its blocks back.",
        source="num_preemptions",
    ),
    MetricSpec(
        "core_restarts",
        "counter",
        "cores",
        "Cores started in place of one that failed.",
        source="core_restarts",
    ),
    MetricSpec(
        "prompt_tokens", "counter", "tokens", "Prompt tokens of started requests.", source="prompt_tokens"
    ),
    MetricSpec("generation_tokens", "counter", "tokens", "Tokens generated.", source="generation_tokens"),
    # Recorded at each step of the core.
    MetricSpec(
        "iteration_tokens_total", "histogram", "tokens", "Tokens computed in one step.", buckets=STEP_TOKENS
    ),
    # Recorded all the time.
    MetricSpec(
        "event_loop_lag_seconds",
        "histogram",
        "seconds",
        "How late the server's event loop came to a call.",
        buckets=SECONDS_LAG,
    ),
    # Recorded once per request.
    MetricSpec(
        "request_success", "counter", "samples", "Samples that ended, by reason.", labels=("finished_reason",)
    ),
    MetricSpec("request_prompt_tokens", "histogram", "tokens", "Prompt tokens of a request.", buckets=TOKENS),
    MetricSpec(
        "request_generation_tokens", "histogram", "tokens", "Tokens generated for a request.", buckets=TOKENS
    ),
    MetricSpec("request_params_n", "histogram", "samples", "The n a request asked for.", buckets=SAMPLES),
    MetricSpec(
        "request_params_max_tokens",
        "histogram",
        "tokens",
        "The max_tokens a request asked for.",
        buckets=TOKENS,
    ),
    MetricSpec("prompt_tokens_cached", "counter", "tokens", "Prompt tokens that came from the prefix cache."),
    MetricSpec(
        "admission_rejections", "counter", "requests", "Requests refused by the engine.", labels=("reason",)
    ),
    MetricSpec(
        "time_to_first_token_seconds",
        "histogram",
        "seconds",
        "Arrival to first token.",
        buckets=SECONDS_SHORT,
    ),
    MetricSpec(
        "inter_token_latency_seconds",
        "histogram",
        "seconds",
        "Gap between two streamed tokens.",
        buckets=SECONDS_TOKEN,
    ),
    MetricSpec(
        "request_time_per_output_token_seconds",
        "histogram",
        "seconds",
        "Mean time per token after the first.",
        buckets=SECONDS_TOKEN,
    ),
    MetricSpec(
        "e2e_request_latency_seconds", "histogram", "seconds", "Arrival to end.", buckets=SECONDS_LONG
    ),
    MetricSpec(
        "request_queue_time_seconds",
        "histogram",
        "seconds",
        "Arrival to first scheduled.",
        buckets=SECONDS_LONG,
    ),
    MetricSpec(
        "request_inference_time_seconds",
        "histogram",
        "seconds",
        "First scheduled to last token.",
        buckets=SECONDS_LONG,
    ),
    MetricSpec(
        "request_prefill_time_seconds",
        "histogram",
        "seconds",
        "First scheduled to first token.",
        buckets=SECONDS_LONG,
    ),
    MetricSpec(
        "request_decode_time_seconds",
        "histogram",
        "seconds",
        "First token to last token.",
        buckets=SECONDS_LONG,
    ),
    # Said once.
    MetricSpec(
        "cache_config_info",
        "gauge",
        "none",
        "How the KV cache is laid out; always 1.",
        labels=("block_size", "num_gpu_blocks", "enable_prefix_caching", "gpu_memory_utilization"),
    ),
)

HTTP_REQUESTS = MetricSpec(
    "http_requests", "counter", "requests", "HTTP requests answered.", labels=("method", "handler", "status")
)

FINISH_REASONS = ("stop", "length", "abort", "error")
REJECTION_REASONS = (
    "overloaded", "shutting_down", "paused", "asleep", "context_length_exceeded", "invalid_value"
)  # fmt: skip
HTTP_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")
OTHER = "other"
"""What an unexpected label value becomes: labels never grow with traffic."""


def bounded(value: str, known: tuple[str, ...]) -> str:
    """`value` if it is one of `known`, else 'other'."""
    return value if value in known else OTHER
