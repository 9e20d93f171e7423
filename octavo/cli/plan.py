"""`octavo plan`: where memory would go and how many users would fit, on any GPU. Starts nothing."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from octavo.base.errors import ConfigError
from octavo.cli.command import Command
from octavo.cli.memory_plan import MemoryPlan, plan_memory, what_would_fit
from octavo.cli.streams import user_path
from octavo.cli.targets import Target, find_target, listed_gpus, local_target
from octavo.cli.units import show_bytes, show_count
from octavo.config.facts import local_device
from octavo.config.flags import FlagParser, add_config_options, config_from, parse_int
from octavo.config.resolve import resolve
from octavo.config.root import EngineConfig
from octavo.weights.config_json import text_config

if TYPE_CHECKING:
    from octavo.weights.checkpoint import Checkpoint

SHORTEST_SHOWN = 1024
"""Tokens of the first context in the table of users; each further one has four times as many."""


class Users(msgspec.Struct, frozen=True, kw_only=True):
    context: int
    """Tokens of one request, prompt and output together."""
    at_once: int
    """Requests of that length that memory holds."""


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    model: str
    architecture: str
    is_supported: bool
    num_parameters: int
    memory: MemoryPlan
    cache_tokens: int
    max_num_seqs: int
    """More requests than this never run at once, whatever memory allows."""
    users: list[Users]
    fits: bool
    """Whether at least one request of the longest context asked for fits."""
    caveat: str | None
    """What is to be known of the device beside its memory."""
    advice: list[str]
    """What would fit where this does not."""


def _add_arguments(parser: FlagParser) -> None:
    parser.add_argument("--gpu", metavar="GPU", help=f"{listed_gpus()}; or a size such as 80GiB.")
    parser.add_argument(
        "--context",
        metavar="INT",
        type=parse_int,
        nargs="+",
        action="extend",
        help="Tokens of one request, prompt and output together; several allowed.",
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    add_config_options(parser, ("model", "cache", "schedule"))


def _run(parsed: argparse.Namespace) -> int:
    wishes = config_from(parsed)
    target = _target(parsed.gpu, wishes)
    from octavo.weights.checkpoint import checkpoint_facts, open_checkpoint
    from octavo.weights.sources.find import find_model

    model = wishes.model
    folder = user_path(model.download_dir) if model.download_dir else None
    path = find_model(model.model, revision=model.revision, download_dir=folder)
    checkpoint = open_checkpoint(path, model.load_format, model.hf_overrides)
    try:
        facts = checkpoint_facts(checkpoint, wishes.model)
        config = resolve(wishes, facts, target.facts).config
        report = make_report(checkpoint, facts.architecture, config, target, parsed.context or [])
    finally:
        checkpoint.close()
    if parsed.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        print("\n".join(_lines(report, config)))
    return 0


def _target(gpu: str | None, wishes: EngineConfig) -> Target:
    on_cpu = wishes.model.device == "cpu"
    if gpu is None:
        local = local_device()
        if wishes.model.device == "cuda" and local.kind == "cpu":
            raise ConfigError(
                f"device is 'cuda', but {local.why}. Name the GPU to plan for with --gpu.", param="device"
            )
        return local_target("cpu" if on_cpu else local.kind)
    if on_cpu:
        raise ConfigError(
            f"--gpu {gpu} and --device cpu contradict each other. Give one of them.", param="gpu"
        )
    return find_target(gpu)


def make_report(
    checkpoint: Checkpoint, architecture: str, config: EngineConfig, target: Target, contexts: list[int]
) -> PlanReport:
    """All of it by arithmetic. `contexts` empty means a few, up to max_model_len."""
    from octavo.models.account import account_of
    from octavo.weights.footprint import kept_bytes, num_parameters

    max_len, max_seqs = config.model.max_model_len, config.schedule.max_num_seqs
    assert max_len is not None and max_seqs is not None, "the config is resolved"
    contexts = sorted(set(contexts)) or _usual_contexts(max_len)
    for context in contexts:
        if not 1 <= context <= max_len:
            raise ConfigError(
                f"context is {context}; 1 to max_model_len {max_len} is possible.", param="context"
            )
    account = account_of(checkpoint.config, config.model)
    sizes = {**text_config(checkpoint.config), **account.sizes}
    parameters = num_parameters(checkpoint)
    weights = partial(kept_bytes, checkpoint)
    memory = plan_memory(sizes, weights, config, target)
    fits = memory.users(contexts[-1]) > 0
    advice = [] if fits else what_would_fit(sizes, weights, config, target, contexts[-1])
    return PlanReport(
        model=config.model.served_model_name[0],
        architecture=architecture,
        is_supported=account.path is not None,
        num_parameters=parameters,
        memory=memory,
        cache_tokens=memory.cache_tokens,
        max_num_seqs=max_seqs,
        users=[Users(context=context, at_once=memory.users(context)) for context in contexts],
        fits=fits,
        caveat=target.caveat,
        advice=advice,
    )


def _usual_contexts(max_len: int) -> list[int]:
    contexts, context = [], SHORTEST_SHOWN
    while context < max_len:
        contexts.append(context)
        context *= 4
    return [*contexts, max_len]


def _lines(report: PlanReport, config: EngineConfig) -> list[str]:
    memory = report.memory
    supported = "" if report.is_supported else ", NOT supported"
    free = memory.memory_bytes - memory.needed_bytes - memory.cache_bytes
    schedule = config.schedule
    what = "answers" if config.model.runner == "pooling" else "logits"
    form = "packed" if config.model.packed_weights else f"as {memory.dtype}"
    rows = [
        ("weights", memory.weights_bytes, f"{show_count(report.num_parameters)} {form}"),
        (
            "step",
            memory.step_bytes,
            f"{schedule.max_num_batched_tokens:,} tokens, {what} of {report.max_num_seqs:,} (estimate)",
        ),
        ("graphs", memory.graph_bytes, "captured steps (estimate)"),
        ("state", memory.state_bytes, f"recurrent, of {report.max_num_seqs:,} requests"),
        ("runtime", memory.runtime_bytes, "CUDA and its libraries (estimate)"),
        (
            "KV cache",
            memory.cache_bytes,
            f"{memory.cache_tokens:,} tokens of {show_bytes(memory.kv_bytes_per_token)}",
        ),
        ("left free", free, f"memory_utilization {config.cache.memory_utilization:g}"),
    ]
    lines = [
        f"model      {report.model}, {report.architecture}{supported}",
        f"device     {memory.target}, {show_bytes(memory.memory_bytes)}",
        *([] if report.caveat is None else [f"           {report.caveat}"]),
        "",
        *(f"{name.ljust(11)}{show_bytes(size):>10}  {about}" for name, size, about in rows if size > 0),
        "",
        *_users_table(report),
    ]
    return lines if report.fits else [*lines, "", *_refusal(report)]


def _users_table(report: PlanReport) -> list[str]:
    lines = [f"{'context':>10}  requests at once"]
    lines += [f"{users.context:>10,}  {users.at_once:,}" for users in report.users]
    if any(users.at_once > report.max_num_seqs for users in report.users):
        lines.append(f"More than {report.max_num_seqs:,} at once need a larger --max-num-seqs.")
    return lines


def _refusal(report: PlanReport) -> list[str]:
    memory, context = report.memory, report.users[-1].context
    missing = memory.needed_bytes - memory.memory_bytes
    if memory.largest_request:
        head = f"The model fits, but no request of {context:,} tokens: at most {memory.largest_request:,}."
    elif missing > 0:
        head = f"Does NOT fit: {show_bytes(missing)} too little, and the KV cache comes on top."
    else:
        head = "Does NOT fit: nothing is left for the KV cache."
    if not report.advice:
        return [head, "No change of options makes it fit: take a smaller model or a larger device."]
    return [head, "What would fit:", *(f"  {line}" for line in report.advice)]


COMMAND = Command(
    description="Show where memory would go and how many requests would fit, on this machine or on any GPU.",
    add_arguments=_add_arguments,
    run=_run,
)
