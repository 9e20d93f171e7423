"""Errors as TGI's clients read them: a sentence and a kind, with TGI's status codes."""

from __future__ import annotations

import msgspec

from octavo.base.errors import ErrorCode, OctavoError, Retry
from octavo.server.errors import ErrorShape, describe
from octavo.server.wording import Wording

_in_tgi_words = Wording(
    {
        "max_tokens": "max_new_tokens",
        "truncate_prompt_tokens": "truncate",
        "prompt_logprobs": "decoder_input_details",
        "logprobs": "top_n_tokens",
        "structured_outputs": "grammar",
        "structured_outputs.json": "grammar.value",
        "structured_outputs.regex": "grammar.value",
    }
)


class TgiError(msgspec.Struct):
    """Body of every 4xx and 5xx, and the last event of a stream that failed."""

    error: str
    error_type: str


def tgi_error(error: Exception) -> tuple[int, TgiError]:
    """HTTP status and body of an exception."""
    status, reply = describe(error)
    status, kind = _kind(error, status, reply.error.code)
    return status, TgiError(_in_tgi_words(reply.error.message), kind)


def _kind(error: Exception, status: int, code: str) -> tuple[int, str]:
    """TGI's status and error_type; its clients raise by the latter."""
    ours = error.code if isinstance(error, OctavoError) else ErrorCode.INTERNAL
    if status == 400:
        return 422, "validation"
    if ours is ErrorCode.OVERLOADED:
        return 429, "overloaded"
    if ours.value.retry is Retry.LATER:
        return status, "overloaded"
    if ours is ErrorCode.ENGINE_FAILED:
        return 424, "generation"
    if status >= 500:
        return status, "incomplete_generation"
    return status, code


TGI_SHAPES: dict[str, ErrorShape] = dict.fromkeys(("/", "/generate", "/generate_stream", "/info"), tgi_error)
"""Which paths speak so."""
