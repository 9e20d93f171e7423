"""PoolingFacts: how a model that does not write makes its answer of hidden states. Read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class PoolingType(StrEnum):
    """Which hidden states the answer is made of."""

    CLS = "cls"
    """The first token's."""
    LAST = "last"
    """The last token's."""
    MEAN = "mean"
    """The mean of all."""


class Activation(StrEnum):
    """What makes scores of labels."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """How a model that predicts tokens scores: by its logits behind the last token."""

    token_ids: tuple[int, ...]
    """Whose logits count."""
    is_difference: bool
    """There are two, and the score is the second one's logit minus the first one's."""

    @property
    def num_scores(self) -> int:
        return 1 if self.is_difference else len(self.token_ids)


@dataclass(frozen=True, kw_only=True)
class PoolingFacts:
    """What the model's files say, or what is usual where they say nothing."""

    task: str
    """'embed' or 'classify'."""
    pooling: PoolingType
    why_pooling: str
    num_outputs: int
    """Numbers of one answer: the embedding's, or a score for each label."""
    is_encoder: bool
    """Every token sees all others: nothing is kept in a cache, and a text is computed in one step."""
    normalizes: bool = False
    """Embeddings have length 1."""
    activation: Activation = Activation.NONE
    labels: tuple[str, ...] = ()
    from_tokens: TokenScores | None = None
    """Scores are what the model predicts for some tokens; None: it has a head for them, or embeds."""
    max_tokens: int | None = None
    """Tokens that texts of the model's training had at most, where that is less than its positions."""
    lowercases: bool = False
    """Texts are made lower case before they are tokenized."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What is written before a text, by name."""
    default_prompt_name: str | None = None
    dimensions: tuple[int, ...] | None = None
    """To which an embedding may be cut; None: to any."""
    dense: tuple[str, ...] = ()
    """Folders of linear layers behind the pooling."""
    stored_dense: tuple[tuple[str, int, int], ...] = ()
    """Such layers that lie among the model's own tensors: name, width in and out. GGUF files have them so."""

    @property
    def can_embed(self) -> bool:
        return self.task == "embed"
