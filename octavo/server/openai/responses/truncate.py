"""truncation 'auto': a conversation that does not fit loses its beginning instead of being refused."""

from __future__ import annotations

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.render.chat import render_chat
from octavo.server.serving import Serving


def fitting(serving: Serving, body: ChatBody) -> ChatBody:
    """The body without the oldest turns that do not fit. What stands before the first turn always stays.

    A turn begins with a user message, so that no tool's result loses its call.
    """
    if _fits(serving, body):
        return body
    turns = [index for index, message in enumerate(body.messages) if message.role == "user"]
    # The fewest turns dropped: each one more makes the prompt shorter.
    low, high = 1, len(turns)
    while low < high:
        middle = (low + high) // 2
        if _fits(serving, _without(body, turns, middle)):
            high = middle
        else:
            low = middle + 1
    # If the last turn alone is too long, the caller hears of the whole conversation.
    return body if low >= len(turns) else _without(body, turns, low)


def _without(body: ChatBody, turns: list[int], count: int) -> ChatBody:
    kept = [*body.messages[: turns[0]], *body.messages[turns[count] :]]
    return body.model_copy(update={"messages": kept})


def _fits(serving: Serving, body: ChatBody) -> bool:
    try:
        render_chat(serving, body)
    except RequestError as error:
        if error.code is ErrorCode.CONTEXT_LENGTH:
            return False
        raise
    return True
