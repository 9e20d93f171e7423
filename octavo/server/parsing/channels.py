"""Harmony, gpt-oss's way to write: every message has a header that names its channel and its recipient."""

from __future__ import annotations

import re
from dataclasses import dataclass

BEGINS = ("<|start|>", "<|channel|>")
MESSAGE = "<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
RECIPIENT_FIRST = " to="
"""An answer may begin so: the prompt's end has opened the header already."""
MAX_HEADER = 512
MAX_HEADER_WORDS = 4
LITERALS = (*BEGINS, MESSAGE, *ENDS, "<|constrain|>")

_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


@dataclass(frozen=True)
class Header:
    """What stands before a message."""

    channel: str
    recipient: str | None

    @property
    def tool(self) -> str | None:
        """The tool it calls: a function, not one of the model's own tools."""
        if self.recipient is None or not self.recipient.startswith("functions."):
            return None
        return self.recipient.removeprefix("functions.") or None

    @property
    def is_reasoning(self) -> bool:
        """The model's own tools are part of how it thinks."""
        return self.channel == "analysis" or (self.recipient is not None and self.tool is None)


def header_of(text: str) -> Header:
    """From all that stands before <|message|>, the opening marker included."""
    channel = _CHANNEL.search(text)
    recipient = _RECIPIENT.search(text)
    return Header(channel[1] if channel else "final", recipient[1] if recipient else None)


def is_cut_header(text: str) -> bool:
    """Whether the answer was cut off within a header: its message has said nothing yet."""
    return len(text) < MAX_HEADER and len(text.split()) <= MAX_HEADER_WORDS and "{" not in text
