"""Grammars that callers write: Lark as it is, GBNF (llama.cpp's EBNF) turned into Lark."""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import any_to_lark, is_lark_syntax

from octavo.base.errors import RequestError

_CODE = re.compile(r"((?<!\\)(?:\\\\)*)\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")


def as_lark(text: str, param: str) -> str:
    """Lark text. What it means is checked when it is compiled."""
    try:
        return text if is_lark_syntax(text) else any_to_lark(_CODE.sub(_character, text))
    except Exception as error:  # The converter is a parser for trusted text: it may raise anything.
        said = "it is nested too deep" if isinstance(error, RecursionError) else _first_line(error)
        raise RequestError(f"{param} is neither a Lark nor a GBNF grammar: {said}.", param=param) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _character(match: re.Match[str]) -> str:
    """A character that GBNF gives by its number: the converter would lose the number's zeros."""
    code = int(match[2] or match[3], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"there is no character {match[0]}")
    return match[1] + (f"\\x{code:02x}" if code < 0x80 else chr(code))
