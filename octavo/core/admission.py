"""What every request has to fulfil before the core takes it: well-formed, and able to fit alone."""

from __future__ import annotations

from array import array

from octavo.base.errors import ErrorCode, RequestError
from octavo.core.kv.prefix import TOKEN_TYPE
from octavo.messages.request import EngineRequest


def check_request(message: EngineRequest, max_request_tokens: int) -> None:
    """Raise RequestError naming the parameter; a request that passes cannot make a step fail."""
    num_prompt = len(message.prompt_token_ids)
    if num_prompt == 0:
        raise RequestError("The prompt is empty; send at least one token.", param="prompt")
    if message.max_tokens < 1 and message.pooling is None:
        raise RequestError(f"max_tokens is {message.max_tokens}; at least 1.", param="max_tokens")
    num_output = len(message.output_token_ids)
    if num_output and num_output >= message.max_tokens:
        raise RequestError(f"{num_output} tokens were answered already; max_tokens is {message.max_tokens}.")
    if num_prompt + message.max_tokens > max_request_tokens:
        raise RequestError(
            f"The prompt has {num_prompt} tokens and max_tokens is {message.max_tokens}: "
            f"{num_prompt + message.max_tokens} in all, but a request can hold at most {max_request_tokens}. "
            "Shorten the prompt or lower max_tokens.",
            code=ErrorCode.CONTEXT_LENGTH,
            param="prompt",
        )
    try:
        array(TOKEN_TYPE, message.prompt_token_ids)
        array(TOKEN_TYPE, message.output_token_ids)
    except (OverflowError, TypeError) as error:
        raise RequestError("The prompt holds something that is not a token id.", param="prompt") from error
