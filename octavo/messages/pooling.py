"""PoolingParams: what a caller wants of a model that answers with numbers. Names are vLLM's."""

from __future__ import annotations

from typing import Literal

import msgspec

from octavo.base.errors import RequestError
from octavo.messages.checks import check_int

PoolingTask = Literal["embed", "classify", "token_embed", "token_classify"]
"""One vector for the whole text, or (token_...) one for each token."""

TOKEN_TASKS = ("token_embed", "token_classify")


class PoolingParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to make of a text's hidden states.

    task None is what the model was made for. use_activation None means yes: embeddings are normalised
    if the model says so, scores of labels go through the model's sigmoid or softmax.
    """

    task: PoolingTask | None = None
    dimensions: int | None = None
    """Keep so many of an embedding's numbers (Matryoshka), normalised again."""
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = None
    """-1: to what the model takes."""
    truncation_side: Literal["left", "right"] = "right"
    """Which end of a long text is cut off; tokens that the tokenizer adds stay."""
    second_from: int | None = None
    """Filled in by the engine: where the second text of a pair begins, for models that tell them apart."""

    def clone(self) -> PoolingParams:
        return msgspec.structs.replace(self)

    def check(self) -> None:
        """Raise RequestError naming the parameter unless every value is usable by some model."""
        if self.dimensions is not None:
            check_int("dimensions", self.dimensions, 1, None)
        keep = self.truncate_prompt_tokens
        if keep is not None and (
            not isinstance(keep, int) or isinstance(keep, bool) or keep < -1 or keep == 0
        ):
            raise RequestError(
                f"truncate_prompt_tokens is {keep}; it must be -1 or at least 1.",
                param="truncate_prompt_tokens",
            )
