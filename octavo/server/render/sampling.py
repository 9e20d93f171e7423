"""Sampling parameters from a body: what it says, else the checkpoint's defaults, else neutral values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.samplers import RepetitionDetectionParams
from octavo.server.errors import quoted
from octavo.server.openai.schema.generation import GenerationBody
from octavo.server.openai.schema.samplers import RepetitionDetection
from octavo.server.render.form import wanted_form
from octavo.server.serving import Serving

SAME_NAME = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "prompt_logprobs",
    "allowed_token_ids",
    "bad_words",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "truncation_side",
    "detokenize",
    "logprob_token_ids",
    "repeat_last_n",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
)
"""Fields that a body and SamplingParams both have."""

MAX_KEY_LENGTH = 20


def sampling_params(
    serving: Serving,
    body: GenerationBody,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """Checked parameters. max_tokens None means the rest of the context."""
    values: dict[str, Any] = dict(serving.engine.default_sampling)
    values.update({name: value for name in SAME_NAME if (value := getattr(body, name)) is not None})
    if prompt_logprobs is not None:
        values["prompt_logprobs"] = max(prompt_logprobs, values.get("prompt_logprobs", 0))
    form = wanted_form(body)
    params = SamplingParams(
        **values,
        structured_outputs=None if form is None else form.wish,
        max_tokens=max_tokens,
        logprobs=logprobs,
        logit_bias=_logit_bias(body.logit_bias),
        repetition_detection=_repetition(body.repetition_detection),
        output_kind=RequestOutputKind.DELTA if body.wants_stream else RequestOutputKind.FINAL_ONLY,
    )
    if params.logprob_token_ids and logprobs is None:
        raise RequestError("logprob_token_ids needs logprobs; ask for them too.", param="logprob_token_ids")
    params.check(serving.engine.vocab_size, serving.engine.config.model.max_logprobs)
    return params


def form_origins(body: GenerationBody) -> Mapping[str, str]:
    """Where the parts of the wanted form stand in the body."""
    form = wanted_form(body)
    return {} if form is None else form.origins


def check_options(serving: Serving, body: GenerationBody) -> None:
    """Rules that involve two fields, or a field and the server's options."""
    if body.stream_options is not None and not body.wants_stream:
        raise RequestError("stream_options is for streams; set stream to true.", param="stream_options")
    if body.prompt_logprobs is not None and body.wants_stream:
        raise RequestError(
            "prompt_logprobs do not come in streams; set stream to false.", param="prompt_logprobs"
        )
    if body.priority and serving.engine.config.schedule.scheduling_policy != "priority":
        raise RequestError(
            "priority needs a server started with --scheduling-policy priority.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="priority",
        )


def check_fan_out(serving: Serving, num_prompts: int, n: int | None, param: str) -> None:
    """Bound what one body can start, before anything is made for it."""
    limit = serving.server.max_prompts
    total = num_prompts * (n or 1)
    if total > limit:
        raise RequestError(
            f"The request asks for {total} answers ({num_prompts} prompts, n = {n or 1}); at most {limit}.",
            param=param if num_prompts > limit else "n",
        )


def check_room(serving: Serving, num_prompt_tokens: int, max_tokens: int | None, param: str) -> int:
    """Tokens left for the answer. Raises CONTEXT_LENGTH unless there is room for what was asked."""
    limit = serving.engine.max_request_tokens
    room = limit - num_prompt_tokens
    if room < 1 or (max_tokens or 1) > room:
        raise RequestError(
            f"The prompt has {num_prompt_tokens} tokens and {max_tokens or 1} are asked for on top; at most "
            f"{limit} fit together. Shorten the prompt or lower max_tokens.",
            code=ErrorCode.CONTEXT_LENGTH,
            param=param if room < 1 else "max_tokens",
        )
    return room


def _repetition(wish: RepetitionDetection | None) -> RepetitionDetectionParams | None:
    return None if wish is None else RepetitionDetectionParams(**wish.model_dump())


def _logit_bias(bias: dict[str, float] | None) -> dict[int, float] | None:
    if bias is None:
        return None
    return {_token_id(key): value for key, value in bias.items()}


def _token_id(key: str) -> int:
    digits = key.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_KEY_LENGTH):
        raise RequestError(f"logit_bias: {quoted(key)} is not a token id.", param="logit_bias")
    return int(key)
