"""`octavo bench serve`: load on a running OpenAI-style server, closed or open loop."""

from __future__ import annotations

import argparse
import asyncio
import math
from typing import Any

import httpx

from octavo.base.errors import ConfigError, EngineError
from octavo.cli import http
from octavo.cli.bench.client import StreamClient
from octavo.cli.bench.datasets import BenchRequest, add_dataset_arguments, make_requests
from octavo.cli.bench.load import arrival_times, check_load, offer
from octavo.cli.bench.measure import Outcome, parse_objectives, summarise
from octavo.cli.bench.progress import request_bar
from octavo.cli.bench.report import (
    add_report_arguments,
    check_outputs,
    print_errors,
    print_summary,
    request_details,
    save_result,
)
from octavo.cli.command import Command
from octavo.cli.sampling import parse_finite
from octavo.cli.streams import user_path
from octavo.config.flags import FlagParser, parse_float, parse_int

_ENDPOINTS = {
    "openai": "/v1/completions",
    "vllm": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
}


def _add_arguments(parser: FlagParser) -> None:
    server = parser.add_argument_group("server")
    server.add_argument(
        "--backend",
        choices=tuple(_ENDPOINTS),
        default="openai",
        help="API to call: openai and vllm are completions, openai-chat is chat (default: openai).",
    )
    server.add_argument(
        "--base-url", "--url", default=None, metavar="URL", help=f"Server (default: {http.DEFAULT_URL})."
    )
    server.add_argument("--host", default=None, help="Server's host, instead of --base-url.")
    server.add_argument("--port", type=parse_int, default=None, help="Server's port, instead of --base-url.")
    server.add_argument(
        "--endpoint", default=None, metavar="PATH", help="Path, instead of the backend's own."
    )
    server.add_argument(
        "--model", default=None, metavar="NAME", help="Model (default: the first one served)."
    )
    server.add_argument("--api-key", default=None, metavar="KEY", help="Key (also from OCTAVO_API_KEY).")
    server.add_argument(
        "--request-timeout",
        type=parse_float,
        default=3600.0,
        metavar="S",
        help="Seconds without data after which a request counts as failed (default: 3600).",
    )
    load = parser.add_argument_group("load")
    load.add_argument(
        "--max-concurrency",
        type=parse_int,
        default=None,
        metavar="N",
        help="Most requests at once (closed loop).",
    )
    load.add_argument(
        "--request-rate",
        type=parse_float,
        default=math.inf,
        metavar="R",
        help="Requests per second (open loop); inf sends all at once (default: inf).",
    )
    load.add_argument(
        "--burstiness",
        type=parse_float,
        default=1.0,
        metavar="B",
        help="Gamma shape of the gaps: 1 Poisson, lower comes in bursts, higher is even (default: 1).",
    )
    load.add_argument(
        "--num-warmups",
        type=parse_int,
        default=0,
        metavar="N",
        help="Requests before the clock (default: 0).",
    )
    load.add_argument(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="Always write the full output length (default: on for made-up prompts).",
    )
    load.add_argument("--temperature", type=parse_finite, default=0.0, metavar="T", help="(default: 0).")
    load.add_argument(
        "--goodput", nargs="+", default=[], metavar="NAME:MS",
        help="Objectives a request must meet to count: ttft:200 tpot:50 e2el:5000.",
    )  # fmt: skip
    add_dataset_arguments(parser, num_prompts=100)
    add_report_arguments(parser)


def _run(parsed: argparse.Namespace) -> int:
    check_load(parsed.request_rate, parsed.burstiness, parsed.max_concurrency)
    _check_numbers(parsed)
    check_outputs(parsed)
    objectives = parse_objectives(parsed.goodput)
    is_chat = parsed.backend == "openai-chat"
    requests = make_requests(parsed, as_words=is_chat)
    _check_prompts(requests, is_chat)
    url = _url(parsed)
    model = parsed.model or http.served_model(url, parsed.api_key)
    endpoint = "/" + (parsed.endpoint or _ENDPOINTS[parsed.backend]).lstrip("/")
    outcomes, duration_s = asyncio.run(_measure(parsed, requests, url + endpoint, _body(parsed, model)))
    summary = summarise(outcomes, duration_s, objectives)
    print_summary(f"{model} at {url}{endpoint}", summary)
    print_errors(outcomes)
    if parsed.plot is not None:
        from octavo.cli.bench.plot import draw

        draw(outcomes, f"{model}: {len(outcomes)} requests", user_path(parsed.plot))
    details = (
        {"model": model, "requests": request_details(outcomes)} if parsed.save_detailed else {"model": model}
    )
    save_result(parsed, "serve", summary, details)
    return 1 if summary.num_failed else 0


def _check_numbers(parsed: argparse.Namespace) -> None:
    if not parsed.request_timeout > 0:
        raise ConfigError("--request-timeout must be over 0 seconds.", param="--request-timeout")
    if parsed.num_warmups < 0:
        raise ConfigError("--num-warmups must be at least 0.", param="--num-warmups")


def _url(parsed: argparse.Namespace) -> str:
    if parsed.host is None and parsed.port is None:
        return http.root_url(parsed.base_url or http.DEFAULT_URL)
    if parsed.base_url is not None:
        raise ConfigError("Give either --base-url or --host and --port.", param="--base-url")
    host, port = parsed.host or "127.0.0.1", 8000 if parsed.port is None else parsed.port
    is_ipv6 = host.count(":") > 1 and "//" not in host and not host.startswith("[")
    return http.root_url(f"{f'[{host}]' if is_ipv6 else host}:{port}")


def _body(parsed: argparse.Namespace, model: str) -> dict[str, Any]:
    ignore_eos = parsed.dataset_name != "custom" if parsed.ignore_eos is None else parsed.ignore_eos
    body: dict[str, Any] = {"model": model, "temperature": parsed.temperature}
    if ignore_eos:
        body["ignore_eos"] = True
    return body


def _check_prompts(requests: list[BenchRequest], is_chat: bool) -> None:
    for request in requests:
        is_ids = isinstance(request.prompt, list) and isinstance(request.prompt[0], int)
        is_messages = isinstance(request.prompt, list) and not is_ids
        if is_messages and not is_chat:
            raise ConfigError("The file holds messages; they need --backend openai-chat.", param="--backend")
        if is_ids and is_chat:
            raise ConfigError("The file holds token ids; they need --backend openai.", param="--backend")


async def _measure(
    parsed: argparse.Namespace, requests: list[BenchRequest], url: str, body: dict[str, Any]
) -> tuple[list[Outcome], float]:
    timeout = httpx.Timeout(parsed.request_timeout, connect=30, pool=None)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        headers=http.headers(parsed.api_key), timeout=timeout, limits=limits, trust_env=http.uses_proxies(url)
    ) as client:
        stream_client = StreamClient(client, url, is_chat=parsed.backend == "openai-chat", body=body)
        await _warm_up(stream_client, _warm_up_requests(parsed))
        due = arrival_times(len(requests), parsed.request_rate, parsed.burstiness, parsed.data_seed)
        with request_bar("Requests", len(requests)) as bar:
            return await offer(
                requests, stream_client.send, due=due, max_concurrency=parsed.max_concurrency, on_done=bar.add
            )


def _warm_up_requests(parsed: argparse.Namespace) -> list[BenchRequest]:
    """At least one: a wrong address, key or model should not become a report of failures.

    Made-up prompts have a seed of their own, so that they do not fill the prefix cache for the others.
    """
    changes = {"data_seed": parsed.data_seed + 1, "num_prompts": max(parsed.num_warmups, 1)}
    return make_requests(
        argparse.Namespace(**{**vars(parsed), **changes}), as_words=parsed.backend == "openai-chat"
    )


async def _warm_up(client: StreamClient, requests: list[BenchRequest]) -> None:
    for outcome in await asyncio.gather(*map(client.send, requests)):
        if outcome.error is not None:
            raise EngineError(f"The first request failed, so nothing was measured: {outcome.error}")


COMMAND = Command(
    description="Time a running server under load and print latency percentiles and throughput.",
    add_arguments=_add_arguments,
    run=_run,
)
