"""What callers get of a model that answers with numbers, shaped like vLLM's."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from octavo.engine.outputs import RequestMetrics
from octavo.messages.result import Numbers

if TYPE_CHECKING:
    import torch


def floats_of(numbers: Numbers) -> list[float]:
    """All of them, row by row."""
    return array("f", numbers.data).tolist()


class PoolingOutput(msgspec.Struct):
    """One text's answer as it came."""

    numbers: Numbers

    @property
    def data(self) -> torch.Tensor:
        """float32 [numbers], or [tokens, numbers] of the tasks for each token."""
        import torch

        return torch.tensor(array("f", self.numbers.data)).view(self.numbers.shape)


class PoolingRequestOutput(msgspec.Struct, kw_only=True):
    """One text, or one pair of texts."""

    request_id: str
    outputs: PoolingOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True
    metrics: RequestMetrics | None = None


class EmbeddingOutput(msgspec.Struct):
    """One text's embedding."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)


class ClassificationOutput(msgspec.Struct):
    """A score for each label, in the order of the labels."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)


class ScoringOutput(msgspec.Struct):
    """How well two texts fit."""

    score: float


class EmbeddingRequestOutput(msgspec.Struct, kw_only=True):
    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True


class ClassificationRequestOutput(msgspec.Struct, kw_only=True):
    request_id: str
    outputs: ClassificationOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True


class ScoringRequestOutput(msgspec.Struct, kw_only=True):
    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int]
    """Of both texts."""
    num_cached_tokens: int = 0
    finished: bool = True


class RerankResult(msgspec.Struct, kw_only=True):
    """One document and how well it answers the query."""

    index: int
    """Among the documents given."""
    document: str
    relevance_score: float


def common(output: PoolingRequestOutput) -> dict[str, Any]:
    """What every kind of output says of its request."""
    return {
        "request_id": output.request_id,
        "prompt_token_ids": output.prompt_token_ids,
        "num_cached_tokens": output.num_cached_tokens,
    }
