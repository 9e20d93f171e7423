"""Text to tokens within the context: absurd text is refused or cut before it is tokenized."""

from __future__ import annotations

from typing import Literal, TypeVar

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.render.rendered import Prompt
from octavo.server.serving import Serving

Side = Literal["left", "right"]
S = TypeVar("S", str, list[int])


def check_text_fits(serving: Serving, num_chars: int, param: str) -> None:
    """Refuse what cannot fit however it is tokenized. Costs nothing."""
    limit = serving.engine.max_request_tokens
    if num_chars > serving.tokenizer.max_chars_for(limit):
        raise RequestError(
            f"The text has {num_chars} characters, more than {limit} tokens can hold "
            f"({serving.tokenizer.max_chars_for(limit)} characters at the very most).",
            code=ErrorCode.CONTEXT_LENGTH,
            param=param,
        )


def text_prompt(
    serving: Serving,
    text: str,
    *,
    add_special_tokens: bool,
    keep: int | None,
    param: str,
    cuts: Side = "left",
) -> Prompt:
    """Tokenize a prompt; `keep` is how many of its tokens count, None for all, and `cuts` where others go."""
    if keep is None or keep > serving.engine.max_request_tokens:
        check_text_fits(serving, len(text), param)
    if keep is None:
        token_ids = serving.tokenizer.encode(text, add_special_tokens)
    else:
        # Text past this point cannot reach the kept tokens.
        part = _kept(text, serving.tokenizer.max_chars_for(keep + 1), cuts)
        encoded = serving.tokenizer.encode(part, add_special_tokens)
        token_ids = kept_tokens(encoded, keep, cuts)
        if len(part) < len(text) or len(encoded) > keep:
            return Prompt(token_ids=token_ids)
    return Prompt(token_ids=_not_empty(serving, token_ids, param), text=text)


def ids_prompt(
    serving: Serving, token_ids: list[int], *, keep: int | None, param: str, cuts: Side = "left"
) -> Prompt:
    """Check a prompt that came as tokens, against the rows of the embedding table."""
    vocab_size = serving.engine.vocab_size
    if token_ids and (
        set(map(type, token_ids)) != {int} or min(token_ids) < 0 or max(token_ids) >= vocab_size
    ):
        raise RequestError(
            f"{param} holds something that is not a token id 0 to {vocab_size - 1}.", param=param
        )
    return Prompt(token_ids=_not_empty(serving, kept_tokens(token_ids, keep, cuts), param))


def kept_tokens(token_ids: list[int], keep: int | None, cuts: Side) -> list[int]:
    """What truncate_prompt_tokens leaves of a prompt, from the side that is not cut."""
    return token_ids if keep is None else _kept(token_ids, keep, cuts)


def tokens_to_keep(serving: Serving, truncate: int | None, max_tokens: int | None) -> int | None:
    """truncate_prompt_tokens as a count: -1 means as many as leave room for the answer."""
    if truncate != -1:
        return truncate
    return max(1, serving.engine.max_request_tokens - (max_tokens or 1))


def _kept(whole: S, keep: int, cuts: Side) -> S:
    return whole[-keep:] if cuts == "left" else whole[:keep]


def _not_empty(serving: Serving, token_ids: list[int], param: str) -> list[int]:
    """An empty prompt means: begin a text, where the model has a token for that."""
    if token_ids:
        return token_ids
    bos = serving.tokenizer.bos_token_id
    if bos is None:
        raise RequestError(
            f"{param} is empty and this model has no begin-of-text token; give at least one token.",
            param=param,
        )
    return [bos]
