"""Items -> messages of a chat: calls and thoughts go to the assistant message that they are part of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from octavo.base.errors import RequestError
from octavo.server.errors import quoted
from octavo.server.openai.responses.reply import Item

Message = dict[str, Any]


def to_messages(instructions: str | None, items: Iterable[Item]) -> list[Message]:
    """Messages in order. Instructions and system messages that follow them at once are one message.

    Many templates refuse a second system message.
    """
    messages = _Messages()
    if instructions is not None:
        messages.add({"role": "system", "content": instructions})
    for item in items:
        _WRITERS[item["type"]](messages, item)
    for message in messages.list:
        if "tool_calls" not in message:  # Thoughts that nothing followed.
            message.setdefault("content", "")
    return _with_one_head(messages.list) if instructions is not None else messages.list


def texts_of(item: Item, field: str = "content") -> list[Item]:
    """Parts of an item as the parts of a chat message."""
    return [{"type": "text", "text": part["text"]} for part in item.get(field) or []]


class _Messages:
    """Grows message by message; remembers which assistant message is still open and what was called."""

    def __init__(self) -> None:
        self.list: list[Message] = []
        self.called: dict[str, str] = {}
        """Name of the function by the id of the call."""
        self._turn: Message | None = None

    def add(self, message: Message) -> None:
        self._turn = None
        self.list.append(message)

    def turn(self, *, without: Iterable[str] = ()) -> Message:
        """The assistant message that goes on; a new one if it has one of the fields `without` already."""
        if self._turn is None or any(name in self._turn for name in without):
            self._turn = {"role": "assistant"}
            self.list.append(self._turn)
        return self._turn


def _add_message(messages: _Messages, item: Item) -> None:
    if item["role"] == "assistant":
        messages.turn(without=("content", "tool_calls"))["content"] = texts_of(item)
    else:
        messages.add({"role": item["role"], "content": texts_of(item)})


def _add_reasoning(messages: _Messages, item: Item) -> None:
    parts = texts_of(item) or texts_of(item, "summary")
    if parts:
        turn = messages.turn(without=("content", "tool_calls", "reasoning_content"))
        turn["reasoning_content"] = "\n".join(part["text"] for part in parts)


def _add_call(messages: _Messages, item: Item) -> None:
    messages.called[item["call_id"]] = item["name"]
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    messages.turn().setdefault("tool_calls", []).append(call)


def _add_call_output(messages: _Messages, item: Item) -> None:
    call_id = item["call_id"]
    name = messages.called.get(call_id)
    if name is None:
        raise RequestError(
            f"There is no function_call with call_id {quoted(call_id)} before its function_call_output. Send "
            "the call too, or continue the response that made it with previous_response_id.",
            param="input",
        )
    output = item["output"]
    content = output if isinstance(output, str) else texts_of(item, "output")
    messages.add({"role": "tool", "tool_call_id": call_id, "name": name, "content": content})


_WRITERS = {
    "message": _add_message,
    "reasoning": _add_reasoning,
    "function_call": _add_call,
    "function_call_output": _add_call_output,
}


def _with_one_head(messages: list[Message]) -> list[Message]:
    """Join the system messages at the beginning."""
    count = next(
        (i for i, message in enumerate(messages) if message["role"] not in ("system", "developer")),
        len(messages),
    )
    texts = [_plain(message["content"]) for message in messages[:count]]
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[count:]]


def _plain(content: str | list[Item]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
