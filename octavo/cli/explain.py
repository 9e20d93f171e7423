"""`octavo explain`: whether a model runs here, what it will take, and every option's value with its reason.

Opens the checkpoint's files and loads no weights.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from octavo.base.errors import ModelFileError
from octavo.cli.answer_formats import AnswerFormats, answer_formats
from octavo.cli.command import Command
from octavo.cli.memory_plan import plan_memory
from octavo.cli.pull import stored_bytes
from octavo.cli.streams import user_path
from octavo.cli.targets import local_target
from octavo.cli.units import show_bytes, show_count
from octavo.config.facts import CheckpointFacts, local_device
from octavo.config.flags import FlagParser, add_config_options, given_options
from octavo.config.resolve import Resolved, resolve
from octavo.config.root import EngineConfig, iter_options
from octavo.weights.config_json import text_config
from octavo.weights.footprint import kept_bytes, num_parameters

if TYPE_CHECKING:
    from octavo.config.model import ModelConfig
    from octavo.models.account import Account
    from octavo.weights.checkpoint import Checkpoint


class OptionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One option: its value, who chose it and why."""

    option: str
    value: Any
    source: str
    """user, default or derived."""
    reason: str


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the files say, and who computes them."""

    name: str
    path: str
    format: str
    architecture: str
    is_supported: bool
    computed_by: str | None
    """octavo or transformers."""
    why: str
    """Of computed_by, or why the model does not run."""
    num_parameters: int
    stored_dtype: str
    file_bytes: int


class RunningReport(ModelReport, frozen=True, kw_only=True):
    """Also what the model takes, which is known only of one that runs."""

    weights_bytes: int
    kv_bytes_per_token: int
    state_bytes: int
    """Recurrent state of one request."""
    cache_bytes: int
    """What the KV cache would take on this machine now."""
    cache_tokens: int
    requests_at_once: float
    """Of max_model_len tokens each, by memory alone."""


def _add_arguments(parser: FlagParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    add_config_options(parser)


def _run(parsed: argparse.Namespace) -> int:
    given = given_options(parsed)
    wishes = EngineConfig.from_options(given)
    from octavo.models.account import account_of
    from octavo.weights.checkpoint import open_checkpoint
    from octavo.weights.sources.find import find_model

    model = wishes.model
    folder = user_path(model.download_dir) if model.download_dir else None
    path = find_model(model.model, revision=model.revision, download_dir=folder)
    checkpoint = open_checkpoint(path, model.load_format, model.hf_overrides)
    try:
        facts = _facts(checkpoint, model)
        resolved = resolve(wishes, facts, local_device())
        account = account_of(checkpoint.config, resolved.config.model)
        report = describe_model(checkpoint, facts.architecture, resolved.config, account)
        if account.path is None:
            _print_refused(report, as_json=parsed.json)
            return 1
        running = with_sizes(report, checkpoint, resolved.config, account)
        formats = answer_formats(checkpoint, resolved.config)
    finally:
        checkpoint.close()
    rows = option_rows(given, resolved)
    if parsed.json:
        whole = {"model": running, "formats": formats, "options": rows}
        print(msgspec.json.format(msgspec.json.encode(whole)).decode())
    else:
        _print(running, formats, rows, resolved.config)
    return 0


def _facts(checkpoint: Checkpoint, wishes: ModelConfig) -> CheckpointFacts:
    """Where a model does not run here, that is the reason to give, whatever else its config lacks."""
    from octavo.models.account import account_of
    from octavo.weights.checkpoint import checkpoint_facts
    from octavo.weights.pooling_files import is_pooled

    try:
        return checkpoint_facts(checkpoint, wishes)
    except ModelFileError as error:
        runner = "pooling" if is_pooled(checkpoint, wishes) else "generate"
        account = account_of(checkpoint.config, replace(wishes, runner=runner))
        raise ModelFileError(account.reason) if account.path is None else error from error


def option_rows(given: dict[str, Any], resolved: Resolved) -> list[OptionRow]:
    """Every option in order, then what was derived beside them. Keys are never shown."""
    spellings = {name: spec.name for spec in iter_options() for name in spec.names}
    chosen_by_user = {spellings[name.replace("-", "_")] for name in given}
    reasons = {reason.option: reason for reason in resolved.reasons}
    values = resolved.config.option_values()
    rows = []
    for spec in iter_options():
        reason = reasons.pop(spec.name, None)
        source = "user" if spec.name in chosen_by_user else "default" if reason is None else "derived"
        value = spec.shown(values[spec.name])
        rows.append(
            OptionRow(option=spec.name, value=value, source=source, reason=reason.reason if reason else "")
        )
    rows.extend(
        OptionRow(option=reason.option, value=reason.value, source="derived", reason=reason.reason)
        for reason in reasons.values()
    )
    return rows


def describe_model(
    checkpoint: Checkpoint, architecture: str, config: EngineConfig, account: Account
) -> ModelReport:
    """What is true of a model whether it runs or not."""
    return ModelReport(
        name=config.model.served_model_name[0],
        path=str(checkpoint.path),
        format=checkpoint.format,
        architecture=architecture,
        is_supported=account.path is not None,
        computed_by=account.path,
        why=account.reason,
        num_parameters=num_parameters(checkpoint),
        stored_dtype=checkpoint.stored_dtype,
        file_bytes=stored_bytes(checkpoint.path),
    )


def with_sizes(
    report: ModelReport, checkpoint: Checkpoint, config: EngineConfig, account: Account
) -> RunningReport:
    """Sizes by arithmetic on shapes and config."""
    sizes = {**text_config(checkpoint.config), **account.sizes}
    target = local_target(config.model.device)
    memory = plan_memory(sizes, partial(kept_bytes, checkpoint), config, target)
    max_len, max_seqs = config.model.max_model_len, config.schedule.max_num_seqs
    assert max_len is not None and max_seqs is not None, "the config is resolved"
    tokens, cache_bytes = memory.cache_tokens, memory.cache_bytes
    if config.cache.num_blocks is None and cache_bytes:
        # The cache never takes more than all requests at full length could fill.
        tokens = min(tokens, max_seqs * max_len)
        cache_bytes = tokens * memory.kv_bytes_per_token
    return RunningReport(
        **msgspec.structs.asdict(report),
        weights_bytes=memory.weights_bytes,
        kv_bytes_per_token=memory.kv_bytes_per_token,
        state_bytes=memory.state_bytes // memory.max_num_seqs,
        cache_bytes=cache_bytes,
        cache_tokens=tokens,
        requests_at_once=tokens / max_len if memory.kv_bytes_per_token else memory.users(max_len),
    )


def _print_refused(report: ModelReport, *, as_json: bool) -> None:
    """Of a model that does not run: no option is chosen for it, and no memory planned."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode({"model": report})).decode())
    else:
        _print_lines(_file_lines(report))


def _file_lines(report: ModelReport) -> list[tuple[str, str]]:
    supported = "supported" if report.is_supported else "NOT supported"
    return [
        ("model", f"{report.name} ({report.format})"),
        ("files", f"{report.path}, {show_bytes(report.file_bytes)}, mostly {report.stored_dtype}"),
        ("architecture", f"{report.architecture}, {supported}"),
        ("computed by", f"{report.computed_by or 'nobody'}: {report.why}"),
        ("parameters", show_count(report.num_parameters)),
    ]


def _print_lines(lines: list[tuple[str, str]]) -> None:
    print("\n".join(f"{name.ljust(14)}{value}" for name, value in lines))


def _print(
    report: RunningReport, formats: AnswerFormats, rows: list[OptionRow], config: EngineConfig
) -> None:
    form = "packed" if config.model.packed_weights else f"as {config.model.dtype}"
    lines = [
        *_file_lines(report),
        ("weights", f"{show_bytes(report.weights_bytes)} {form}"),
        *_cache_lines(report, config),
    ]
    if config.model.runner == "generate":
        lines += [
            ("tool calls", f"{formats.tool_calls}: {formats.tool_calls_reason}"),
            ("reasoning", f"{formats.reasoning}: {formats.reasoning_reason}"),
        ]
    _print_lines(lines)
    print()
    cells = [("option", "value", "source", "reason")]
    cells += [(row.option, _show(row.value), row.source, row.reason) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    for option, value, source, reason in cells:
        line = f"{option.ljust(widths[0])}  {value.ljust(widths[1])}  {source.ljust(widths[2])}  {reason}"
        print(line.rstrip())


def _cache_lines(report: RunningReport, config: EngineConfig) -> list[tuple[str, str]]:
    state = [("state", f"{show_bytes(report.state_bytes)} per request, however long it is")]
    state = state if report.state_bytes else []
    if not report.kv_bytes_per_token and state:
        return [("KV cache", "none: no layer attends"), *state]
    if not report.kv_bytes_per_token:
        return [("KV cache", "none: texts are computed whole, and nothing of them is kept")]
    fits = (
        f"{show_bytes(report.cache_bytes)} of cache: about {report.cache_tokens:,} tokens, "
        f"{report.requests_at_once:.1f} requests of {config.model.max_model_len:,}"
    )
    return [("KV cache", f"{show_bytes(report.kv_bytes_per_token)} per token"), *state, ("fits here", fits)]


def _show(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


COMMAND = Command(
    description="Show whether a model runs here, what it takes, and every option's value with its reason.",
    add_arguments=_add_arguments,
    run=_run,
)
