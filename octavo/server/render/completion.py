"""A completions body -> prompts and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.engine.prompt_vectors import check_without_tokens
from octavo.messages.params import SamplingParams
from octavo.server.openai.schema.completion import CompletionBody
from octavo.server.render.beam import num_beams, wanted_beams
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.render.sampling import (
    check_fan_out,
    check_options,
    check_room,
    form_origins,
    sampling_params,
)
from octavo.server.render.text import ids_prompt, text_prompt, tokens_to_keep
from octavo.server.render.vectors import VectorFile, check_copies, vector_files, vector_prompt
from octavo.server.serving import Serving

DEFAULT_MAX_TOKENS = 16
"""OpenAI's. As nobody asked for it, it is lowered to what the context has room for."""

GivenPrompt = str | list[int] | VectorFile

PROMPT_KINDS = "a string, a list of strings, a list of token ids or a list of lists of token ids"


def render_completion(serving: Serving, body: CompletionBody) -> Rendered:
    """Check everything and tokenize. May be slow on long text: call it in a thread then."""
    name = "prompt" if body.prompt_embeds is None else "prompt_embeds"
    given: Sequence[GivenPrompt] = (
        _split(body.prompt) if body.prompt_embeds is None else vector_files(serving, body)
    )
    check_fan_out(serving, len(given), num_beams(body), name)
    _check(serving, body)
    params = sampling_params(
        serving,
        body,
        max_tokens=(body.max_tokens or 1) if body.max_tokens is not None else DEFAULT_MAX_TOKENS,
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
    if body.prompt_embeds is not None:
        check_without_tokens(params)
    keep = tokens_to_keep(serving, params.truncate_prompt_tokens, params.max_tokens)
    is_only = len(given) == 1
    prompts = [
        _prompt(serving, body, prompt, keep, name if is_only else f"{name}[{index}]", params)
        for index, prompt in enumerate(given)
    ]
    check_copies(prompts, params.n)
    return Rendered(
        prompts=prompts,
        params=params,
        max_tokens=body.max_tokens,
        priority=body.priority or 0,
        cache_salt=body.cache_salt,
        timeout_s=body.request_timeout,
        form_origins=form_origins(body),
        beams=wanted_beams(body, params, params.max_tokens),
    )


def drops_answer(body: CompletionBody) -> bool:
    """max_tokens 0 with echo: one token is generated, as the engine must, and not shown."""
    return body.max_tokens == 0


def _check(serving: Serving, body: CompletionBody) -> None:
    check_options(serving, body)
    if body.echo and serving.engine.config.model.skip_tokenizer_init:
        raise RequestError("echo needs text, and this server runs without a tokenizer.", param="echo")
    if body.max_tokens == 0 and not body.echo:
        raise RequestError("max_tokens is 0; it must be at least 1, unless echo is true.", param="max_tokens")
    if body.max_tokens == 0 and body.min_tokens:
        raise RequestError("min_tokens is more than max_tokens.", param="min_tokens")
    if body.best_of is not None and body.best_of != (body.n or 1) and not body.use_beam_search:
        raise RequestError(
            "best_of is supported only if it equals n, or with use_beam_search.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="best_of",
        )


def _split(prompt: Any) -> list[str | list[int]]:
    """One entry per prompt. Kinds are never mixed; ids are checked later."""
    if prompt is None:
        raise RequestError(f"prompt is missing; it must be {PROMPT_KINDS}.", param="prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        raise RequestError(f"prompt must be {PROMPT_KINDS}.", param="prompt")
    if not prompt:
        return [[]]
    if isinstance(prompt[0], list | str):
        if any(type(entry) is not type(prompt[0]) for entry in prompt):
            raise RequestError(f"prompt mixes kinds; it must be {PROMPT_KINDS}.", param="prompt")
        return prompt
    if any(isinstance(entry, list | str) for entry in prompt):
        raise RequestError(f"prompt mixes kinds; it must be {PROMPT_KINDS}.", param="prompt")
    return [prompt]


def _prompt(
    serving: Serving,
    body: CompletionBody,
    prompt: GivenPrompt,
    keep: int | None,
    param: str,
    params: SamplingParams,
) -> Prompt:
    cuts = params.truncation_side
    if isinstance(prompt, VectorFile):
        made = vector_prompt(serving, prompt, param)
    elif isinstance(prompt, str):
        add_special = body.add_special_tokens is not False
        made = text_prompt(serving, prompt, add_special_tokens=add_special, keep=keep, param=param, cuts=cuts)
    else:
        made = ids_prompt(serving, prompt, keep=keep, param=param, cuts=cuts)
    room = check_room(serving, len(made.token_ids), body.max_tokens, param)
    if body.max_tokens is None and room < DEFAULT_MAX_TOKENS:
        return replace(made, max_tokens=room)
    return made
