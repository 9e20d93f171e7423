from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from octavo.messages.result import CoreStats
from octavo.observe.metric_table import HTTP_REQUESTS, METRICS
from octavo.observe.metrics import Metrics

VLLM_NAMES = {
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "iteration_tokens_total",
    "request_success",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_params_n",
    "request_params_max_tokens",
    "prompt_tokens_cached",
    "admission_rejections",
    "core_restarts",
    "event_loop_lag_seconds",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "cache_config_info",
}


def page_of(metrics: Metrics) -> str:
    return metrics.render("")[0].decode()


def test_the_table_is_the_frozen_list() -> None:
    assert {spec.name for spec in METRICS} == VLLM_NAMES


def test_every_metric_is_on_the_page_before_any_traffic() -> None:
    metrics = Metrics(model_name="m")
    metrics.read_stats(CoreStats)
    metrics.cache_config(
        {"block_size": 1, "num_gpu_blocks": 2, "enable_prefix_caching": True, "gpu_memory_utilization": 0.9}
    )
    families = {family.name: family for family in text_string_to_metric_families(page_of(metrics))}
    for spec in METRICS:
        assert f"vllm:{spec.name}" in families, spec.name
        assert families[f"vllm:{spec.name}"].type == spec.kind
        assert families[f"vllm:{spec.name}"].samples, spec.name
    assert HTTP_REQUESTS.name in families


def test_two_servers_in_one_process_do_not_meet() -> None:
    one, two = Metrics(model_name="one"), Metrics(model_name="two")
    one.samples_ended(["stop"])
    assert 'finished_reason="stop",model_name="one"} 1.0' in page_of(one)
    assert 'finished_reason="stop",model_name="two"} 0.0' in page_of(two)
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("vllm:")]


def test_labels_do_not_grow_with_traffic() -> None:
    metrics = Metrics(model_name="m")
    metrics.know_handlers(["/v1/models"])
    for number in range(500):
        metrics.http(f"M{number}", f"/{number}", 200 + number % 300)
        metrics.rejected(f"reason {number}")
        metrics.samples_ended([f"end {number}"])
    lines = page_of(metrics).splitlines()
    assert len([line for line in lines if line.startswith("http_requests_total{")]) <= 4
    assert len([line for line in lines if line.startswith("vllm:admission_rejections_total{")]) == 7
    assert len([line for line in lines if line.startswith("vllm:request_success_total{")]) == 5


def test_openmetrics_where_asked_for() -> None:
    page, content_type = Metrics(model_name="m").render("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in content_type and page.endswith(b"# EOF\n")
