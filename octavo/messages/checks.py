"""Checks of single values, with one wording for all parameters. Each raises RequestError naming its own."""

from __future__ import annotations

import math

from octavo.base.errors import RequestError

MAX_TOKEN_LIST = 4096
MAX_INT = 2**63 - 1
"""What every number of ours fits into: the ends of all that have no smaller one."""


def check_range(
    name: str, value: float, low: float, high: float, *, low_open: bool = False, param: str | None = None
) -> None:
    """A finite number from `low` to `high`; `low_open` leaves `low` itself out."""
    ok = isinstance(value, int | float) and not isinstance(value, bool)
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not ok or not is_finite or value > high or value < low or (low_open and value == low):
        bracket = "(" if low_open else "["
        raise RequestError(f"{name} must be a number in {bracket}{low:g}, {high:g}].", param=param or name)


def check_int(name: str, value: int, low: int, high: int | None) -> None:
    """An integer from `low` to `high`, both allowed; None is no end but MAX_INT."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(f"{name} must be an integer.", param=name)
    if value < low or value > (MAX_INT if high is None else high):
        allowed = (
            f"at least {low}" if high is None and value < low else f"between {low} and {high or MAX_INT}"
        )
        raise RequestError(f"{name} is {value}; it must be {allowed}.", param=name)


def check_tokens(name: str, tokens: list[int] | None, vocab_size: int, limit: int = MAX_TOKEN_LIST) -> None:
    """Token ids of the vocabulary, at most `limit` of them."""
    if tokens is None:
        return
    if len(tokens) > limit:
        raise RequestError(f"{name} has {len(tokens)} entries; at most {limit}.", param=name)
    for token in tokens:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise RequestError(f"{name} holds a token id outside 0..{vocab_size - 1}.", param=name)
