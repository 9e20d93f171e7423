"""Models that predict tokens and were made to score by them: which tokens, said in one of two ways.

A config, or a user through hf_overrides, names tokens (classifier_from_token); sentence-transformers names
their ids (its module LogitScore).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.config.pooling import TokenScores
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import load_tokenizer
from octavo.weights.config_json import text_config

NAMES = "classifier_from_token"
METHOD = "method"
DIFFERENCE = "from_2_way_softmax"
"""Of two tokens, no and yes: the probability of yes among them, which is the sigmoid of a difference."""
AS_THEY_ARE = "no_post_processing"
"""A score for each token."""
MAX_TOKENS = 2**10


def names_tokens(config: Mapping[str, Any]) -> bool:
    return bool(_entry(config, NAMES))


def scores_by_name(config: dict[str, Any], source: TokenizerSource) -> tuple[TokenScores, tuple[str, ...]]:
    """What a config with classifier_from_token asks for, and what the scores are called.

    Raises ModelFileError for tokens that the model's tokenizer or its embedding does not have.
    """
    tokens = _entry(config, NAMES)
    is_list = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    if not is_list or not 1 <= len(tokens) <= MAX_TOKENS:
        raise ModelFileError(
            f"{NAMES} is {str(tokens)[:80]}; it must be a list of 1 to {MAX_TOKENS} tokens, such as "
            '["no", "yes"].'
        )
    method = _entry(config, METHOD) or (DIFFERENCE if len(tokens) == 2 else AS_THEY_ARE)
    if method not in (DIFFERENCE, AS_THEY_ARE):
        raise ModelFileError(
            f"The method of {NAMES} is {str(method)[:80]!r}; known are {DIFFERENCE} and {AS_THEY_ARE}."
        )
    if method == DIFFERENCE and len(tokens) != 2:
        raise ModelFileError(f"{DIFFERENCE} takes 2 tokens, for no and for yes; {NAMES} has {len(tokens)}.")
    backend = load_tokenizer(source).backend
    found = {token: backend.token_to_id(token) for token in tokens}
    unknown = [token for token, token_id in found.items() if token_id is None]
    if unknown:
        raise ModelFileError(
            f"{NAMES} names {unknown[0][:80]!r}, which is no token of the model's tokenizer. Tokens are "
            "spelled as in its vocabulary."
        )
    is_difference = method == DIFFERENCE
    ids = tuple(_checked(found[token], config) for token in tokens)
    return TokenScores(token_ids=ids, is_difference=is_difference), tuple(
        tokens[1:] if is_difference else tokens
    )


def scores_by_id(config: dict[str, Any], said: Mapping[str, Any]) -> TokenScores:
    """What the config of a module LogitScore says."""
    right, wrong = said.get("true_token_id"), said.get("false_token_id")
    if wrong is None:
        return TokenScores(token_ids=(_checked(right, config),), is_difference=False)
    return TokenScores(token_ids=(_checked(wrong, config), _checked(right, config)), is_difference=True)


def _checked(token_id: object, config: dict[str, Any]) -> int:
    vocab = text_config(config).get("vocab_size")
    if type(token_id) is not int or token_id < 0:
        raise ModelFileError(f"A score is to be the logit of the token {str(token_id)[:40]}, which is no id.")
    if isinstance(vocab, int) and token_id >= vocab:
        raise ModelFileError(
            f"A score is to be the logit of the token {token_id}, but the model's vocab_size is {vocab}."
        )
    return token_id


def _entry(config: Mapping[str, Any], name: str) -> Any:
    """Of the config, or of the part of it that is the language model's."""
    return config.get(name, text_config(dict(config)).get(name))
