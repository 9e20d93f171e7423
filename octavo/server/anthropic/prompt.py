"""From a body to a prompt: rendered, given its room, and with what shall stay cached of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from octavo.base.errors import RequestError
from octavo.messages.request import PrefixPin
from octavo.server.anthropic.body import CountTokensBody, MessagesBody, PromptBody
from octavo.server.anthropic.messages import Breakpoint, MessageList, read_messages
from octavo.server.anthropic.translate import chat_of, chat_up_to
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.render.answer_plan import answer_plan
from octavo.server.render.chat import encode_conversation, render_chat
from octavo.server.render.rendered import Rendered
from octavo.server.serving import Serving


@dataclass(frozen=True, kw_only=True)
class MessagesPrompt:
    """Ready for the engine."""

    chat: ChatBody
    rendered: Rendered
    is_cut_by_context: bool
    """The context has less room than the caller allowed the answer."""


def render_messages(serving: Serving, body: MessagesBody) -> MessagesPrompt:
    """Check everything and apply the template. May be slow on long text: call it in a thread then."""
    found = read_messages(body)
    chat = _within_reason(serving, chat_of(body, found))
    rendered = render_chat(serving, chat)
    token_ids = rendered.prompts[0].token_ids
    # max_tokens is an upper bound here, not a claim: agents send large ones to models of any context.
    room = serving.engine.max_request_tokens - len(token_ids)
    max_tokens = min(body.max_tokens, room) or 1
    return MessagesPrompt(
        chat=chat,
        rendered=replace(
            rendered,
            params=msgspec.structs.replace(rendered.params, max_tokens=max_tokens),
            max_tokens=body.max_tokens,
            pins=_pins(serving, body, found, token_ids),
        ),
        is_cut_by_context=room < body.max_tokens,
    )


def count_tokens(serving: Serving, body: CountTokensBody) -> int:
    """Tokens of the prompt that the same body would make for /v1/messages."""
    return len(encode_conversation(serving, chat_of(body, read_messages(body)), False))


def _within_reason(serving: Serving, chat: ChatBody) -> ChatBody:
    """A model that does not reason keeps to any budget for it. Agents set one whatever the model is."""
    if chat.thinking_token_budget is None or answer_plan(serving, chat).reasoning is not None:
        return chat
    return chat.model_copy(update={"thinking_token_budget": None})


def _pins(
    serving: Serving, body: PromptBody, found: MessageList, token_ids: list[int]
) -> tuple[PrefixPin, ...]:
    """One for each time asked for: the prompt up to the last breakpoint with it, in whole blocks."""
    if not serving.engine.config.cache.enable_prefix_caching:
        return ()
    block_size = serving.engine.ready.plan.block_size
    pins = []
    for point in {point.ttl_s: point for point in found.breakpoints}.values():
        num_tokens = _length(serving, body, found, point, token_ids) // block_size * block_size
        if num_tokens:
            pins.append(PrefixPin(num_tokens, point.ttl_s))
    return tuple(pins)


def _length(
    serving: Serving, body: PromptBody, found: MessageList, point: Breakpoint, token_ids: list[int]
) -> int:
    """Tokens of the prompt before a breakpoint: those it has in common with a prompt that ends there."""
    if point.messages == found.messages:
        return len(token_ids)
    try:
        shorter = encode_conversation(serving, chat_up_to(body, point.messages), False)
    except RequestError:
        return 0  # The template wants whole conversations. Caching goes on as for anybody.
    same = (index for index, pair in enumerate(zip(shorter, token_ids, strict=False)) if pair[0] != pair[1])
    return next(same, min(len(shorter), len(token_ids)))
