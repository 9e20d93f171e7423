"""What a benchmark sends: random lengths, a JSONL file, or prompts that share prefixes. Seeded.

Random prompts are token ids, so that lengths are exact whatever the tokenizer; a chat endpoint takes
no ids, there they are short common words, about one token each.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import msgspec

from octavo.base.errors import ConfigError
from octavo.cli.streams import user_path
from octavo.config.flags import FlagParser, parse_float, parse_int

DATASETS = ("random", "custom", "prefix_repetition")
_WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child",
    "world", "school", "state", "family", "student", "group", "country", "problem", "hand", "part",
    "place", "case", "week", "company", "system", "program", "question", "work", "night", "point",
    "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot",
    "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind",
    "head", "house", "service", "friend", "father", "power", "hour", "game", "line", "end",
    "member", "law", "car", "city", "name", "team", "minute", "idea", "body",
)  # fmt: skip
_FIRST_ID = 100
"""Smaller ids are special or single-byte tokens in many vocabularies."""

_LENGTHS = (
    "num_prompts",
    "random_input_len",
    "random_output_len",
    "custom_output_len",
    "prefix_repetition_prefix_len",
    "prefix_repetition_suffix_len",
    "prefix_repetition_num_prefixes",
    "prefix_repetition_output_len",
)
Prompt = str | list[int] | list[dict[str, Any]]
"""Text, token ids or chat messages."""


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a benchmark."""

    prompt: Prompt
    max_tokens: int


def add_dataset_arguments(parser: FlagParser, num_prompts: int, seed_flag: str = "--seed") -> None:
    """Flags under vLLM's names. seed_flag: another name where --seed means the engine's."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset-name", choices=DATASETS, default="random", help="What to send (default: random)."
    )
    data.add_argument(
        "--dataset-path",
        metavar="FILE",
        help='custom: JSONL with {"prompt": ...} or {"messages": [...]} and perhaps "output_len".',
    )
    data.add_argument(
        "--random-range-ratio",
        type=parse_float,
        default=0.0,
        metavar="R",
        help="random: lengths vary by this share both ways, 0 to 1 (default: 0).",
    )
    data.add_argument(
        seed_flag,
        dest="data_seed",
        type=parse_int,
        default=0,
        metavar="N",
        help="Seed of lengths, prompts and arrivals (default: 0).",
    )
    counts = (
        (("--num-prompts",), num_prompts, "Requests to send"),
        (("--random-input-len",), 128, "random: prompt tokens"),
        (("--random-output-len",), 128, "random: output tokens"),
        (("--random-vocab-size",), 8000, "Token ids of made-up prompts stay below this"),
        (("--custom-output-len",), 256, "custom: output tokens where a line has no output_len"),
        (("--prefix-repetition-prefix-len", "--prefix-len"), 256, "prefix_repetition: tokens of a prefix"),
        (("--prefix-repetition-suffix-len", "--suffix-len"), 64, "prefix_repetition: tokens after it"),
        (("--prefix-repetition-num-prefixes", "--num-prefixes"), 10, "prefix_repetition: different prefixes"),
        (("--prefix-repetition-output-len",), 128, "prefix_repetition: output tokens"),
    )
    for flags, default, text in counts:
        data.add_argument(
            *flags, type=parse_int, default=default, metavar="N", help=f"{text} (default: {default})."
        )


def make_requests(parsed: argparse.Namespace, *, as_words: bool) -> list[BenchRequest]:
    """The requests these flags describe. as_words: prompts as text instead of token ids."""
    _check(parsed)
    source = random.Random(parsed.data_seed)
    maker = _PromptMaker(source, parsed.random_vocab_size, as_words)
    if parsed.dataset_name == "custom":
        return _read_custom(parsed)
    if parsed.dataset_name == "prefix_repetition":
        prefixes = [
            maker.items(parsed.prefix_repetition_prefix_len)
            for _ in range(parsed.prefix_repetition_num_prefixes)
        ]
        requests = [
            BenchRequest(
                prompt=maker.prompt(
                    prefixes[index % len(prefixes)] + maker.items(parsed.prefix_repetition_suffix_len)
                ),
                max_tokens=parsed.prefix_repetition_output_len,
            )
            for index in range(parsed.num_prompts)
        ]
        source.shuffle(requests)
        return requests
    ratio = parsed.random_range_ratio
    return [
        BenchRequest(
            prompt=maker.prompt(maker.items(_vary(source, parsed.random_input_len, ratio))),
            max_tokens=_vary(source, parsed.random_output_len, ratio),
        )
        for _ in range(parsed.num_prompts)
    ]


def _check(parsed: argparse.Namespace) -> None:
    for name in _LENGTHS:
        if getattr(parsed, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is {getattr(parsed, name)}; it must be at least 1.", param=flag)
    if parsed.dataset_path is not None and parsed.dataset_name != "custom":
        raise ConfigError("--dataset-path needs --dataset-name custom.", param="--dataset-path")
    if not 0 <= parsed.random_range_ratio <= 1:
        raise ConfigError("--random-range-ratio must be between 0 and 1.", param="--random-range-ratio")
    if parsed.random_vocab_size <= _FIRST_ID:
        raise ConfigError(
            f"--random-vocab-size must be over {_FIRST_ID}; ids below that are left out.",
            param="--random-vocab-size",
        )


def _vary(source: random.Random, length: int, ratio: float) -> int:
    return max(1, source.randint(round(length * (1 - ratio)), round(length * (1 + ratio))))


class _PromptMaker:
    """Makes prompts of a wanted length, in ids or in words."""

    def __init__(self, source: random.Random, vocab_size: int, as_words: bool) -> None:
        self._source = source
        self._vocab_size = vocab_size
        self._as_words = as_words

    def items(self, length: int) -> list[int]:
        return [self._source.randrange(_FIRST_ID, self._vocab_size) for _ in range(length)]

    def prompt(self, items: list[int]) -> Prompt:
        return " ".join(_WORDS[item % len(_WORDS)] for item in items) if self._as_words else items


class _Line(msgspec.Struct, kw_only=True):
    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    output_len: int | None = None
    output_tokens: int | None = None


def _read_custom(parsed: argparse.Namespace) -> list[BenchRequest]:
    """The first --num-prompts lines; a shorter file is gone through again."""
    if parsed.dataset_path is None:
        raise ConfigError("--dataset-name custom needs --dataset-path FILE.", param="--dataset-path")
    path = user_path(parsed.dataset_path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.", param="--dataset-path") from None
    requests = [
        _parse_line(line, f"{path} line {number}", parsed.custom_output_len)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not requests:
        raise ConfigError(f"{path} has no lines.", param="--dataset-path")
    return [requests[index % len(requests)] for index in range(parsed.num_prompts)]


def _parse_line(line: bytes, where: str, default_len: int) -> BenchRequest:
    try:
        entry = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {error}", param="--dataset-path") from None
    prompt: Prompt | None = entry.messages if entry.prompt is None else entry.prompt
    if not prompt or (entry.prompt is not None and entry.messages is not None):
        raise ConfigError(f"{where}: give either prompt or messages, not empty.", param="--dataset-path")
    length = entry.output_len or entry.output_tokens or default_len
    return BenchRequest(prompt=prompt, max_tokens=length)
