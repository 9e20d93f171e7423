"""A conversation -> prompt and parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.params import SamplingParams
from octavo.server.openai.schema.chat import ChatBody, ConversationBody
from octavo.server.render.answer_form import planned_params
from octavo.server.render.answer_plan import AnswerPlan, answer_plan
from octavo.server.render.beam import num_beams, wanted_beams
from octavo.server.render.history import fitted_history
from octavo.server.render.messages import template_messages
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.render.sampling import (
    check_fan_out,
    check_options,
    check_room,
    form_origins,
    sampling_params,
)
from octavo.server.render.text import check_text_fits, kept_tokens, tokens_to_keep
from octavo.server.render.thinking import effort_kwargs
from octavo.server.render.tool_list import with_tool_list
from octavo.server.render.tools import ToolWish
from octavo.server.serving import Serving


def render_chat(serving: Serving, body: ChatBody) -> Rendered:
    """Check everything and apply the template. May be slow on long text: call it in a thread then."""
    check_fan_out(serving, 1, num_beams(body), "messages")
    check_options(serving, body)
    params = sampling_params(
        serving, body, max_tokens=_max_tokens(body), logprobs=_num_logprobs(serving, body)
    )
    plan = answer_plan(serving, body)
    token_ids = _encoded(serving, body, plan, bool(body.add_special_tokens))
    prompt = Prompt(token_ids=_kept(serving, token_ids, params))
    check_room(serving, len(prompt.token_ids), params.max_tokens, "messages")
    params, origins = planned_params(serving, body, plan, params, form_origins(body), token_ids)
    return Rendered(
        prompts=[prompt],
        params=params,
        max_tokens=params.max_tokens,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        timeout_s=body.request_timeout,
        form_origins=origins,
        beams=wanted_beams(body, params, params.max_tokens),
    )


def encode_conversation(serving: Serving, body: ConversationBody, add_special_tokens: bool) -> list[int]:
    """Tokens of a conversation, as its template writes them."""
    return _encoded(serving, body, answer_plan(serving, body), add_special_tokens)


def _encoded(
    serving: Serving, body: ConversationBody, plan: AnswerPlan, add_special_tokens: bool
) -> list[int]:
    if body.chat_template is not None and not serving.server.trust_request_chat_template:
        raise RequestError(
            "This server takes no chat templates from requests; --trust-request-chat-template allows it.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="chat_template",
        )
    messages = fitted_history(
        template_messages(body.messages, plan.template), plan.detected.tools, plan.template
    )
    check_text_fits(serving, sum(len(message["content"] or "") for message in messages), "messages")
    check_text_fits(serving, plan.wish.num_chars if plan.wish.is_active else 0, "tools")
    is_continued = bool(body.continue_final_message)
    opens_answer = body.add_generation_prompt
    if is_continued and messages[-1]["role"] != "assistant":
        raise RequestError(
            "continue_final_message needs an assistant message at the end.", param="continue_final_message"
        )
    encode = partial(
        serving.tokenizer.encode_chat,
        tools=None if plan.lists_tools else plan.wish.documents,
        documents=body.documents,
        add_generation_prompt=(not is_continued) if opens_answer is None else opens_answer,
        continue_final_message=is_continued,
        chat_template=body.chat_template,
        template_kwargs={
            **effort_kwargs(body.reasoning_effort, plan.template),
            **(body.chat_template_kwargs or {}),
        },
        run=None if body.chat_template is None else serving.engine.templates.run,
    )
    token_ids = _with_tools_told(encode, messages, plan.wish) if plan.lists_tools else encode(messages)
    bos = serving.tokenizer.bos_token_id
    if add_special_tokens and bos is not None and token_ids[:1] != [bos]:
        return [bos, *token_ids]
    return token_ids


def _with_tools_told(
    encode: Callable[[list[dict[str, Any]]], list[int]], messages: list[dict[str, Any]], wish: ToolWish
) -> list[int]:
    try:
        return encode(with_tool_list(messages, wish))
    except RequestError as error:
        if error.code is not ErrorCode.TEMPLATE_FAILED or messages[0]["role"] == "system":
            raise
    # Some templates refuse system messages, such as those of Gemma 2.
    return encode(with_tool_list(messages, wish, role="user"))


def echoed_text(body: ChatBody) -> str:
    """With echo, the answer begins with the assistant message it continues."""
    last = body.messages[-1]
    if not body.echo or last.role != "assistant" or last.content is None:
        return ""
    content = template_messages([last], None)[0]["content"]
    assert isinstance(content, str), "content is not None"
    return content


def _max_tokens(body: ChatBody) -> int | None:
    if body.max_completion_tokens is not None and body.max_tokens is not None:
        if body.max_completion_tokens != body.max_tokens:
            raise RequestError(
                "max_tokens is the old name of max_completion_tokens; give one of them.", param="max_tokens"
            )
        return body.max_tokens
    return body.max_completion_tokens if body.max_tokens is None else body.max_tokens


def _num_logprobs(serving: Serving, body: ChatBody) -> int | None:
    top = body.top_logprobs
    if top is not None:
        limit = serving.engine.config.model.max_logprobs
        if not 0 <= top <= limit:
            raise RequestError(f"top_logprobs is {top}; it must be 0 to {limit}.", param="top_logprobs")
        if top and not body.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true.", param="top_logprobs")
    return (top or 0) if body.logprobs else None


def _kept(serving: Serving, token_ids: list[int], params: SamplingParams) -> list[int]:
    keep = tokens_to_keep(serving, params.truncate_prompt_tokens, params.max_tokens)
    kept = kept_tokens(token_ids, keep, params.truncation_side)
    if not kept:
        raise RequestError("The chat template made an empty prompt of these messages.", param="messages")
    return kept
