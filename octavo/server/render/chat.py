"""A conversation -> prompt and parameters."""

from __future__ import annotations

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.params import SamplingParams
from octavo.server.openai.schema.chat import ChatBody, ConversationBody
from octavo.server.render.messages import template_messages
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.render.sampling import check_fan_out, check_options, check_room, sampling_params
from octavo.server.render.text import check_text_fits, tokens_to_keep
from octavo.server.serving import Serving


def render_chat(serving: Serving, body: ChatBody) -> Rendered:
    """Check everything and apply the template. May be slow on long text: call it in a thread then."""
    check_fan_out(serving, 1, body.n, "messages")
    check_options(serving, body)
    params = sampling_params(
        serving, body, max_tokens=_max_tokens(body), logprobs=_num_logprobs(serving, body)
    )
    token_ids = encode_conversation(serving, body, bool(body.add_special_tokens))
    prompt = Prompt(token_ids=_kept(serving, token_ids, params))
    check_room(serving, len(prompt.token_ids), params.max_tokens, "messages")
    return Rendered(
        prompts=[prompt],
        params=params,
        max_tokens=params.max_tokens,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
    )


def encode_conversation(serving: Serving, body: ConversationBody, add_special_tokens: bool) -> list[int]:
    """Tokens of a conversation, as its template writes them."""
    if body.chat_template is not None and not serving.server.trust_request_chat_template:
        raise RequestError(
            "This server takes no chat templates from requests; --trust-request-chat-template allows it.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="chat_template",
        )
    template = body.chat_template or serving.tokenizer.chat_template
    messages = template_messages(body.messages, template)
    check_text_fits(serving, sum(len(message["content"] or "") for message in messages), "messages")
    is_continued = bool(body.continue_final_message)
    opens_answer = body.add_generation_prompt
    if is_continued and messages[-1]["role"] != "assistant":
        raise RequestError(
            "continue_final_message needs an assistant message at the end.", param="continue_final_message"
        )
    template_kwargs = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        template_kwargs.setdefault("reasoning_effort", body.reasoning_effort)
    token_ids = serving.tokenizer.encode_chat(
        messages,
        documents=body.documents,
        add_generation_prompt=(not is_continued) if opens_answer is None else opens_answer,
        continue_final_message=is_continued,
        chat_template=body.chat_template,
        template_kwargs=template_kwargs,
    )
    bos = serving.tokenizer.bos_token_id
    if add_special_tokens and bos is not None and token_ids[:1] != [bos]:
        return [bos, *token_ids]
    return token_ids


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
    kept = token_ids if keep is None else token_ids[-keep:]
    if not kept:
        raise RequestError("The chat template made an empty prompt of these messages.", param="messages")
    return kept
