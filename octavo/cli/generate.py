"""`octavo generate`: prompts in, completions out, offline. Text for people, JSONL for programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from octavo.base.errors import ConfigError
from octavo.cli.command import Command
from octavo.cli.sampling import add_sampling_arguments, given_sampling, merged
from octavo.cli.streams import read_stdin, user_path
from octavo.config.flags import FlagParser, add_config_options, given_options, parse_int
from octavo.messages.params import SamplingParams

if TYPE_CHECKING:
    from octavo.engine.llm import LLM
    from octavo.engine.outputs import RequestOutput

_PROMPT_TYPES: dict[str, Any] = {
    "prompt": str,
    "prompt_token_ids": list[int],
    "messages": list[dict[str, Any]],
}
_MAX_TOKENS = 256


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt: text, token ids or messages, with the sampling values of its own line."""

    id: Any
    prompt: str | list[int] | list[dict[str, Any]]
    sampling: dict[str, Any] = {}


def _add_arguments(parser: FlagParser) -> None:
    prompts = parser.add_argument_group(
        "prompts", "Without --prompt and --input, lines are read from standard input."
    )
    prompts.add_argument(
        "--prompt", action="append", metavar="TEXT", help="A prompt; may be given several times."
    )
    prompts.add_argument("--input", metavar="FILE", help="File with one prompt a line; - is standard input.")
    prompts.add_argument("--output", metavar="FILE", help="File for the results, instead of standard output.")
    prompts.add_argument(
        "--jsonl",
        action="store_true",
        help='Lines in and out are JSON: {"prompt": ...}, {"prompt_token_ids": [...]} or '
        '{"messages": [...]}, with an id and sampling values if wanted.',
    )
    prompts.add_argument("--chat", action="store_true", help="Put prompts through the model's chat template.")
    prompts.add_argument(
        "--n", type=parse_int, default=1, metavar="N", help="Answers per prompt (default: 1)."
    )
    prompts.add_argument("--no-progress", action="store_true", help="Do not show the progress bar.")
    add_sampling_arguments(parser)
    add_config_options(parser, ("model", "cache", "schedule", "observe"))


def _run(parsed: argparse.Namespace) -> int:
    options = given_options(parsed)
    work = _read_work(parsed)
    sampling = {**given_sampling(parsed), "n": parsed.n}
    with _output(parsed.output) as out:
        from octavo.engine.llm import LLM

        with LLM(**options) as llm:
            prompts = [_prompt(llm, item, parsed.chat) for item in work]
            params = [_params(llm, {**sampling, **item.sampling}) for item in work]
            results = llm.generate(prompts, params, use_tqdm=not parsed.no_progress and sys.stderr.isatty())
        if parsed.output is not None and user_path(parsed.output).is_file():
            out.truncate(0)
        _write_results(out, work, results, parsed)
    return 0


def _read_work(parsed: argparse.Namespace) -> list[Work]:
    if (
        parsed.output is not None
        and parsed.input not in (None, "-")
        and _is_same(parsed.input, parsed.output)
    ):
        raise ConfigError("Input and output are the same file.", param="--output")
    if parsed.prompt is not None:
        if parsed.input is not None:
            raise ConfigError("Give either --prompt or --input.", param="--input")
        return [Work(id=index, prompt=text) for index, text in enumerate(parsed.prompt)]
    lines = _lines(parsed.input)
    if parsed.jsonl:
        work = [_parse_line(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        work = [
            Work(id=index, prompt=line) for index, line in enumerate(line for line in lines if line.strip())
        ]
    if not work:
        raise ConfigError("There are no prompts. Use --prompt TEXT, --input FILE or pipe lines in.")
    return work


def _is_same(source: str, target: str) -> bool:
    return user_path(source).resolve() == user_path(target).resolve()


def _lines(name: str | None) -> list[str]:
    """Split at line feeds only: other separators, such as U+2028, are text, also within JSON."""
    if name in (None, "-"):
        if name is None and sys.stdin.isatty():
            raise ConfigError("There are no prompts. Use --prompt TEXT, --input FILE or pipe lines in.")
        return read_stdin().split("\n")
    try:
        return user_path(str(name)).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {name}: {error}.", param="--input") from None


def _parse_line(line: str, number: int) -> Work:
    try:
        entry = msgspec.json.decode(line, type=dict[str, Any])
        given = [name for name in _PROMPT_TYPES if name in entry]
        if len(given) != 1:
            raise msgspec.ValidationError("give exactly one of prompt, prompt_token_ids and messages")
        prompt = msgspec.convert(entry.pop(given[0]), type=_PROMPT_TYPES[given[0]])
        own_id = entry.pop("id", number - 1)
        params = msgspec.convert(entry, type=SamplingParams, str_keys=True)
    except msgspec.DecodeError as error:
        raise ConfigError(f"Input line {number} cannot be used: {error}.", param="--jsonl") from None
    return Work(id=own_id, prompt=prompt, sampling={name: getattr(params, name) for name in entry})


def _prompt(llm: LLM, work: Work, is_chat: bool) -> dict[str, Any]:
    prompt = work.prompt
    if isinstance(prompt, str) and not is_chat:
        return {"prompt": prompt}
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if any(isinstance(item, dict) for item in prompt):
        messages = [item for item in prompt if isinstance(item, dict)]
        return {"prompt_token_ids": llm.get_tokenizer().encode_chat(messages)}
    return {"prompt_token_ids": prompt}


def _params(llm: LLM, sampling: dict[str, Any]) -> SamplingParams:
    defaults = msgspec.structs.asdict(llm.get_default_sampling_params())
    return SamplingParams(**merged({**defaults, "max_tokens": _MAX_TOKENS}, sampling))


def _write_results(
    out: TextIO, work: Sequence[Work], results: Sequence[RequestOutput], parsed: argparse.Namespace
) -> None:
    if parsed.jsonl:
        for item, result in zip(work, results, strict=True):
            out.write(msgspec.json.encode(_as_json(item, result)).decode() + "\n")
        return
    texts = [sample.text for result in results for sample in result.outputs]
    out.write(("\n---\n".join(text.strip("\n") for text in texts)) + "\n")


def _as_json(work: Work, result: RequestOutput) -> dict[str, Any]:
    return {
        "id": work.id,
        "outputs": [
            {"index": sample.index, "text": sample.text, "finish_reason": sample.finish_reason}
            for sample in result.outputs
        ],
        "usage": {
            "prompt_tokens": len(result.prompt_token_ids),
            "completion_tokens": sum(len(sample.token_ids) for sample in result.outputs),
            "cached_tokens": result.num_cached_tokens,
        },
    }


@contextmanager
def _output(name: str | None) -> Iterator[TextIO]:
    """The results' file, opened before the model is loaded so that a bad name costs nothing.

    What it held stays until there are results to put in its place.
    """
    if name is None:
        yield sys.stdout
        return
    try:
        out = user_path(name).open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot write {name}: {error.strerror}.", param="--output") from None
    with out:
        yield out


COMMAND = Command(
    description=(
        "Complete prompts offline. Results are separated by a line of three dashes, or JSONL.\n"
        f"An answer has at most {_MAX_TOKENS} tokens unless --max-tokens says otherwise."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
