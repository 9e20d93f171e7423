"""What a body wants of beam search, and which other wishes do not go with it."""

from __future__ import annotations

from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.beam import MAX_BEAM_WIDTH, BeamSearchParams
from octavo.messages.checks import check_int
from octavo.messages.params import SamplingParams
from octavo.server.openai.schema.generation import GenerationBody

ONLY_WITH_BEAMS: dict[str, tuple[Any, ...]] = {
    "beam_width": (1,),
    "length_penalty": (1.0,),
    "early_stopping": (False,),
}
"""Fields of beam search, and the values that ask for nothing without it."""

NOT_WITH_BEAMS: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1),
    "min_p": (0.0,),
    "typical_p": (1.0,),
    "top_n_sigma": (0.0, -1.0),
    "xtc_probability": (0.0,),
    "dry_multiplier": (0.0,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "logit_bias": ({},),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "stop": ([],),
    "stop_token_ids": ([],),
    "min_tokens": (0,),
    "prompt_logprobs": (),
    "logprob_token_ids": ([],),
    "repetition_detection": (),
    "detokenize": (True,),
    "stream": (False,),
}
"""Beams are compared by the model's own log-probabilities: what would change or watch the choice of
single tokens is refused, rather than left undone."""


def wanted_beams(
    body: GenerationBody, params: SamplingParams, max_tokens: int | None
) -> BeamSearchParams | None:
    """Checked parameters of the search, or None: the body wants none."""
    if not body.use_beam_search:
        for name, neutral in ONLY_WITH_BEAMS.items():
            value = getattr(body, name)
            if value is not None and value not in neutral:
                raise RequestError(f"{name} is for beam search; set use_beam_search to true.", param=name)
        return None
    for name, neutral in NOT_WITH_BEAMS.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise _unsupported(name)
    if params.structured_outputs is not None or params.thinking_budget is not None:
        raise _unsupported("structured output" if params.structured_outputs else "thinking_token_budget")
    if params.prompt_logprobs is not None:
        raise _unsupported("echo")  # of log-probabilities, that is
    beams = BeamSearchParams(
        beam_width=_width(body),
        n=params.n,
        max_tokens=max_tokens,
        ignore_eos=params.ignore_eos,
        temperature=params.temperature,
        length_penalty=1.0 if body.length_penalty is None else body.length_penalty,
        early_stopping=False if body.early_stopping is None else body.early_stopping,
        include_stop_str_in_output=params.include_stop_str_in_output,
        skip_special_tokens=params.skip_special_tokens,
        logprobs=params.logprobs,
    )
    beams.check()
    return beams


def num_beams(body: GenerationBody) -> int | None:
    """How many answers the engine follows for each prompt: checked for beams, else what the body says."""
    if not body.use_beam_search:
        return body.n
    width = _width(body)
    check_int("beam_width", width, 1, MAX_BEAM_WIDTH)
    return width


def _width(body: GenerationBody) -> int:
    """beam_width, or by its oldest name best_of, or n."""
    best_of: int | None = getattr(body, "best_of", None)
    for width in (body.beam_width, best_of, body.n):
        if width is not None:
            return width
    return 1


def _unsupported(name: str) -> RequestError:
    reason = "it answers at the end only" if name == "stream" else "beams are compared as the model sees them"
    return RequestError(
        f"{name} does not go with use_beam_search: {reason}. Leave one of them out.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param="response_format" if name == "structured output" else name,
    )
