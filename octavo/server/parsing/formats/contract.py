"""What a format of tool calls is: data only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from octavo.server.parsing.bodies.contract import Body

IdStyle = Literal["call", "short"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How to write calls, for grammars that force them."""

    begin: str = ""
    """Before the first call."""
    call: tuple[str, str]
    """Before and after the arguments of one call. NAME stands for the tool's name."""
    between: str | None = None
    """Between two calls; None if there can be only one."""
    end: str = ""
    """After the last call."""
    arguments: Literal["json", "tags", "pairs"] = "json"
    argument: tuple[str, str] = ("", "")
    """Of the other kinds: before and after one value. KEY stands for its name, IS_TEXT for true or false."""
    quote: str = ""
    """Of pairs: stands around strings, where they are not written as in JSON."""
    thought: tuple[str, str] | None = None
    """Around what has to be thought before the first call."""


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """One way in which models write calls."""

    name: str
    models: str
    """Who writes so, for people."""
    signs: tuple[tuple[str, ...], ...]
    """A chat template that holds all strings of one of these groups teaches this format."""
    opens: tuple[str, ...] = ()
    """Markers that begin a call, or a section of calls."""
    starts: tuple[str, ...] = ()
    """What begins a call where an answer's text begins, and nowhere else."""
    body: Body
    closes: tuple[str, ...] = ()
    """Markers that may stand behind a call; they are no text."""
    id_style: IdStyle = "call"
    shape: Shape

    @property
    def literals(self) -> tuple[str, ...]:
        """Every marker, so that those which are special tokens can be shown to the parser."""
        shape = self.shape
        written = (shape.begin, *shape.call, shape.between or "", shape.end)
        thought = self.shape.thought or ()
        return (*self.opens, *self.closes, *self.body_literals, *written, *thought)

    @property
    def as_shaped(self) -> ToolFormat:
        """The same, begun only as its shape begins: other calls could not be held to their schemas."""
        begin = self.shape.begin or self.shape.call[0]
        is_marked = any(begin.startswith(mark) for mark in self.opens)
        return replace(self, starts=()) if is_marked else replace(self, opens=())

    @property
    def body_literals(self) -> tuple[str, ...]:
        found: list[str] = []
        for value in vars(self.body).values():
            if isinstance(value, str):
                found.append(value)
            elif isinstance(value, tuple):
                found += [item for item in value if isinstance(item, str)]
        return tuple(found)
