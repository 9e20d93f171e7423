"""A plain text to continue -> prompt and parameters, for protocols that say the rest in their own words."""

from __future__ import annotations

from octavo.server.openai.schema.generation import GenerationBody
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.render.sampling import check_options, check_room, form_origins, sampling_params
from octavo.server.render.text import text_prompt, tokens_to_keep
from octavo.server.serving import Serving


def render_plain(
    serving: Serving,
    body: GenerationBody,
    text: str,
    *,
    param: str,
    logprobs: int | None = None,
    default_max_tokens: int | None = None,
) -> Rendered:
    """Check everything and tokenize. May be slow on long text: call it in a thread then.

    Without max_tokens in the body `default_max_tokens` counts, lowered to what the context has room for;
    None stands for all of it. `param` is what the caller calls the text.
    """
    check_options(serving, body)
    params = sampling_params(serving, body, max_tokens=body.max_tokens, logprobs=logprobs)
    keep = tokens_to_keep(serving, params.truncate_prompt_tokens, params.max_tokens or default_max_tokens)
    add_special = body.add_special_tokens is not False
    prompt = text_prompt(serving, text, add_special_tokens=add_special, keep=keep, param=param)
    room = check_room(serving, len(prompt.token_ids), body.max_tokens, param)
    if body.max_tokens is None and default_max_tokens is not None:
        limit = min(default_max_tokens, room)
        prompt = Prompt(token_ids=prompt.token_ids, text=prompt.text, max_tokens=limit)
    return Rendered(
        prompts=[prompt],
        params=params,
        max_tokens=body.max_tokens,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        timeout_s=body.request_timeout,
        form_origins=form_origins(body),
    )
