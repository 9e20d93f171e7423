"""`octavo bench throughput`: many requests at once, offline."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from octavo.cli.bench.datasets import BenchRequest, add_dataset_arguments, make_requests
from octavo.cli.bench.measure import Outcome, summarise
from octavo.cli.bench.offline import OFFLINE_GROUPS, exact_length, loaded, outcome_of
from octavo.cli.bench.report import (
    add_report_arguments,
    check_outputs,
    print_summary,
    request_details,
    save_result,
)
from octavo.cli.command import Command
from octavo.cli.streams import user_path
from octavo.config.flags import FlagParser, add_config_options

if TYPE_CHECKING:
    from octavo.engine.llm import LLM


def _add_arguments(parser: FlagParser) -> None:
    add_dataset_arguments(parser, num_prompts=100, seed_flag="--data-seed")
    add_report_arguments(parser)
    add_config_options(parser, OFFLINE_GROUPS)


def _run(parsed: argparse.Namespace) -> int:
    check_outputs(parsed)
    requests = make_requests(parsed, as_words=False)
    with loaded(parsed) as llm:
        outcomes, duration_s = _measure(llm, requests)
        name = llm.config.model.served_model_name[0]
    summary = summarise(outcomes, duration_s, {})
    print_summary(f"{name}, offline", summary)
    if parsed.plot is not None:
        from octavo.cli.bench.plot import draw

        draw(outcomes, f"{name}: {len(outcomes)} requests, offline", user_path(parsed.plot))
    details = (
        {"model": name, "requests": request_details(outcomes)} if parsed.save_detailed else {"model": name}
    )
    save_result(parsed, "throughput", summary, details)
    return 0


def _measure(llm: LLM, requests: list[BenchRequest]) -> tuple[list[Outcome], float]:
    prompts = [_prompt(llm, request) for request in requests]
    params = [exact_length(request.max_tokens) for request in requests]
    llm.generate([[1] * 8], exact_length(2), use_tqdm=False)
    began = time.monotonic()
    outputs = llm.generate(prompts, params, use_tqdm=sys.stderr.isatty())
    return [outcome_of(output) for output in outputs], time.monotonic() - began


def _prompt(llm: LLM, request: BenchRequest) -> dict[str, object]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return {"prompt": prompt}
    ids = [item for item in prompt if isinstance(item, int)]
    if ids:
        return {"prompt_token_ids": ids}
    messages = [item for item in prompt if isinstance(item, dict)]
    return {"prompt_token_ids": llm.get_tokenizer().encode_chat(messages)}


COMMAND = Command(
    description="Time many requests at once, offline: tokens and requests per second.",
    add_arguments=_add_arguments,
    run=_run,
)
