"""Flags and spellings of sampling parameters for commands that generate."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

from octavo.base.errors import RequestError
from octavo.config.flags import FlagParser, parse_float, parse_int


def parse_finite(text: str) -> float:
    """JSON has no other numbers: a server would be sent null, and take its default."""
    value = parse_float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text!r}")
    return value


_NUMBERS = {
    "temperature": (parse_finite, "Randomness; 0 always takes the likeliest token"),
    "top_p": (parse_finite, "Keep the likeliest tokens up to this share"),
    "top_k": (parse_int, "Keep this many of the likeliest tokens; 0 keeps all"),
    "min_p": (parse_finite, "Keep tokens at least this likely, relative to the likeliest"),
    "max_tokens": (parse_int, "Most tokens of an answer"),
    "min_tokens": (parse_int, "Fewest tokens of an answer"),
    "seed": (parse_int, "Same seed, same answer"),
    "presence_penalty": (parse_finite, "Push away from tokens already written"),
    "frequency_penalty": (parse_finite, "Push away from tokens by how often they were written"),
    "repetition_penalty": (parse_finite, "Divide the odds of tokens already seen; 1 is off"),
    "repeat_last_n": (parse_int, "Over how many last tokens that looks; -1 is all, 0 none"),
    "typical_p": (parse_finite, "Keep the tokens of most typical surprise up to this share; 1 is off"),
    "top_n_sigma": (parse_finite, "Keep tokens within so many deviations of the likeliest; 0 is off"),
    "xtc_probability": (parse_finite, "How often XTC leaves out all likely tokens but one; 0 is off"),
    "xtc_threshold": (parse_finite, "From which probability on XTC takes a token for likely"),
    "dry_multiplier": (parse_finite, "Push away from what would repeat earlier text; 0 is off"),
    "dry_base": (parse_finite, "How fast DRY's push grows with the repetition"),
    "dry_allowed_length": (parse_int, "Repetitions up to this length are free for DRY"),
    "dry_penalty_last_n": (parse_int, "Over how many last tokens DRY looks; -1 is all, 0 none"),
}

_TEXTS = {
    "stop": ("--stop", "End before this text"),
    "dry_sequence_breakers": ("--dry-sequence-breaker", "No repetition reaches across this text, for DRY"),
}
"""Options that may be given several times."""


def add_sampling_arguments(parser: FlagParser) -> None:
    """Only what the user gives ends up in `given_sampling`; the model's own defaults fill the rest."""
    group = parser.add_argument_group("sampling", "Unset values come from the model.")
    for name, (convert, text) in _NUMBERS.items():
        flag = "--sampling-seed" if name == "seed" else "--" + name.replace("_", "-")
        group.add_argument(
            flag,
            dest=f"sampling.{name}",
            type=convert,
            default=argparse.SUPPRESS,
            metavar="N",
            help=f"{text}.",
        )
    for name, (flag, text) in _TEXTS.items():
        group.add_argument(
            flag,
            dest=f"sampling.{name}",
            action="append",
            default=argparse.SUPPRESS,
            metavar="TEXT",
            help=f"{text}; may be given several times.",
        )


def given_sampling(parsed: argparse.Namespace) -> dict[str, Any]:
    """The sampling values on the command line."""
    return {
        key.removeprefix("sampling."): value
        for key, value in vars(parsed).items()
        if key.startswith("sampling.")
    }


def parse_sampling(name: str, text: str) -> tuple[str, Any]:
    """('temperature', '0.7') -> ('temperature', 0.7). 'default' gives None: forget the value."""
    name = name.replace("-", "_")
    if name not in _TEXTS and name not in _NUMBERS:
        raise RequestError(
            f"There is nothing called {name!r} to set. Known: {', '.join(sorted(known_names()))}."
        )
    if text == "default":
        return name, None
    if name in _TEXTS:
        return name, [text]
    try:
        return name, _NUMBERS[name][0](text)
    except argparse.ArgumentTypeError as error:
        raise RequestError(f"{name} {error}.", param=name) from None


def known_names() -> list[str]:
    return [*_NUMBERS, *_TEXTS]


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The model's defaults with the user's values over them."""
    return {**defaults, **{name: value for name, value in given.items() if value is not None}}
