"""Grammars that callers write: Lark as it is, GBNF (llama.cpp's EBNF) turned into Lark."""

from __future__ import annotations

from llguidance.gbnf_to_lark import any_to_lark

from octavo.base.errors import RequestError


def as_lark(text: str, param: str) -> str:
    """Lark text. What it means is checked when it is compiled."""
    try:
        return any_to_lark(text)
    except Exception as error:  # The converter is a parser for trusted text: it may raise anything.
        said = "it is nested too deep" if isinstance(error, RecursionError) else _first_line(error)
        raise RequestError(f"{param} is neither a Lark nor a GBNF grammar: {said}.", param=param) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
