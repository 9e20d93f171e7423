"""Turns of Anthropic's shape -> messages of a chat, and the places up to which they shall stay cached.

One turn may hold text, thinking, calls and results; a chat has a message for each side of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from octavo.base.errors import RequestError
from octavo.server.anthropic.blocks import (
    Block,
    blocks,
    call_of,
    control_of,
    kind_of,
    string,
    texts,
    unsupported,
)
from octavo.server.anthropic.body import CacheControl, InputMessage, PromptBody

MAX_BREAKPOINTS = 4
"""Anthropic's limit: each may cost a rendering of its own."""

TTL_S = {"5m": 300.0, "1h": 3600.0}

CLIENT_NOTE = "x-anthropic-billing-header:"
"""Coding agents may begin a system prompt with such a block. It is for Anthropic's accounts and differs
between requests: kept, it would make every prompt differ from the one before at its first tokens."""


@dataclass
class Message:
    """One message while its blocks are being read."""

    role: str
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    tool_call_id: str | None = None

    def copy(self) -> Message:
        return replace(self, texts=[*self.texts], thoughts=[*self.thoughts], calls=[*self.calls])

    def plain(self) -> dict[str, Any]:
        """As a chat body holds it."""
        plain: dict[str, Any] = {"role": self.role, "content": "\n".join(self.texts)}
        if self.thoughts:
            plain["reasoning_content"] = "\n".join(self.thoughts)
        if self.calls:
            plain["tool_calls"] = self.calls
        if self.tool_call_id is not None:
            plain["tool_call_id"] = self.tool_call_id
        return plain


@dataclass(frozen=True, kw_only=True)
class Breakpoint:
    """The prompt up to here shall stay cached."""

    ttl_s: float
    messages: list[Message]
    """Those before, the last one as far as it goes. Empty: only tools are before."""


class MessageList:
    """Collects messages in the order of the prompt. Raises RequestError naming the block that is wrong."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.breakpoints: list[Breakpoint] = []

    def add_tools(self, tools: Any) -> None:
        """Their breakpoints only: `tools.py` checks the rest."""
        for index, tool in enumerate(tools if isinstance(tools, list) else ()):
            if isinstance(tool, dict):
                self._mark(tool, f"tools[{index}]")

    def add_system(self, content: Any, where: str) -> None:
        for text, block, place in texts(content, where):
            if not text.startswith(CLIENT_NOTE):
                self._of("system").texts.append(text)
            self._mark(block, place)

    def add_turn(self, turn: InputMessage, where: str) -> None:
        if turn.role == "system":
            self.add_system(turn.content, where)
            return
        add = self._user_block if turn.role == "user" else self._assistant_block
        for block, place in blocks(turn.content, where):
            add(block, place)
            self._mark(block, place)

    def add_breakpoint(self, control: CacheControl, where: str) -> None:
        """Here, at the end of what has been added."""
        if len(self.breakpoints) == MAX_BREAKPOINTS:
            raise RequestError(f"At most {MAX_BREAKPOINTS} blocks may have cache_control.", param=where)
        so_far = [*self.messages[:-1], *(message.copy() for message in self.messages[-1:])]
        self.breakpoints.append(Breakpoint(ttl_s=TTL_S[control.ttl or "5m"], messages=so_far))

    def _user_block(self, block: Block, where: str) -> None:
        kind = kind_of(block, where)
        if kind == "text":
            self._of("user").texts.append(string(block, "text", where))
        elif kind == "tool_result":
            self._add_result(block, where)
        else:
            raise unsupported(block, where, "text and tool_result")

    def _assistant_block(self, block: Block, where: str) -> None:
        kind = kind_of(block, where)
        message = self._of("assistant")
        if kind == "text":
            message.texts.append(string(block, "text", where))
        elif kind == "thinking":
            message.thoughts.append(string(block, "thinking", where))
        elif kind == "tool_use":
            message.calls.append(call_of(block, where))
        elif kind != "redacted_thinking":  # Of which nobody but its maker can read anything.
            raise unsupported(block, where, "text, thinking, redacted_thinking and tool_use")

    def _add_result(self, block: Block, where: str) -> None:
        content = block.get("content")
        result = Message("tool", tool_call_id=string(block, "tool_use_id", where))
        if content is not None and content != []:
            result.texts = [text for text, _, _ in texts(content, f"{where}.content")]
        if block.get("is_error") is True and not "".join(result.texts[:1]).lower().startswith("error"):
            # Templates know no failed results, so the model has to read it.
            result.texts[:1] = ["Error: " + "".join(result.texts[:1])]
        self.messages.append(result)

    def _of(self, role: str) -> Message:
        """The last message if it is of this side, else a new one: many templates want sides to alternate."""
        if not self.messages or self.messages[-1].role != role:
            self.messages.append(Message(role))
        return self.messages[-1]

    def _mark(self, block: Block, where: str) -> None:
        marked = control_of(block, where)
        if marked is not None:
            self.add_breakpoint(*marked)


def read_messages(body: PromptBody) -> MessageList:
    """All messages of a body. If the last one is the assistant's, it is to be continued."""
    if not body.messages:
        raise RequestError("messages is empty; it needs at least one message.", param="messages")
    found = MessageList()
    found.add_tools(body.tools)
    if body.system:
        found.add_system(body.system, "system")
    for index, turn in enumerate(body.messages):
        found.add_turn(turn, f"messages[{index}].content")
    if body.cache_control is not None:
        found.add_breakpoint(body.cache_control, "cache_control")
    if not any(message.role != "system" for message in found.messages):
        raise RequestError("messages needs at least one of the user's.", param="messages")
    if found.messages[-1].calls:
        raise RequestError(
            "The last message calls tools; the next one has to hold their tool_result blocks.",
            param=f"messages[{len(body.messages) - 1}].content",
        )
    return found
