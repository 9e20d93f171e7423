"""The inputs of a body: one or many, texts or token ids. Everything wrong is named by its place."""

from __future__ import annotations

from typing import Any

from octavo.base.errors import RequestError
from octavo.engine.pooling.prepare import Input
from octavo.server.pooling.schema import MAX_INPUTS

KINDS = "a string, a list of strings, a list of token ids or a list of lists of token ids"


def inputs_of(given: Any, param: str = "input") -> list[Input]:
    """One entry per text. Kinds are never mixed; the engine checks ids."""
    if given is None:
        raise RequestError(f"{param} is missing; it must be {KINDS}.", param=param)
    many = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    check_count(len(many), param)
    kind = type(many[0])
    if kind not in (str, list):
        raise RequestError(f"{param} must be {KINDS}.", param=param)
    for index, one in enumerate(many):
        where = f"{param}[{index}]" if len(many) > 1 else param
        if type(one) is not kind:
            raise RequestError(f"{where} is of another kind; {param} must be {KINDS}.", param=param)
        if not one:
            raise RequestError(f"{where} is empty; give at least one character or token.", param=param)
    return many


def texts_of(given: Any, param: str) -> list[str]:
    """A string or a list of strings."""
    many = given if isinstance(given, list) else [given]
    check_count(len(many), param)
    if not many:
        raise RequestError(f"{param} is empty; give at least one text.", param=param)
    for index, one in enumerate(many):
        where = f"{param}[{index}]" if isinstance(given, list) else param
        if not isinstance(one, str):
            raise RequestError(f"{where} must be a string.", param=param)
        if not one:
            raise RequestError(f"{where} is empty; give at least one character.", param=param)
    return many


def check_count(count: int, param: str) -> None:
    if count > MAX_INPUTS:
        raise RequestError(f"{param} has {count} entries; at most {MAX_INPUTS} in one request.", param=param)
