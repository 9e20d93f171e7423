"""Bodies and replies of the routes for embeddings, scores and labels. Names are OpenAI's, vLLM's, Jina's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field, WithJsonSchema

from octavo.base.errors import RequestError
from octavo.engine.prepare import MAX_SALT_LENGTH
from octavo.messages.pooling import PoolingParams, PoolingTask
from octavo.server.body import Body
from octavo.server.openai.schema.completion import PROMPT_SCHEMA

MAX_INPUTS = 2048
"""Texts in one body: OpenAI's bound."""

Input = Annotated[Any, WithJsonSchema(PROMPT_SCHEMA)]
"""Checked by inputs.py: lists may be long."""
Texts = Annotated[Any, WithJsonSchema({"anyOf": PROMPT_SCHEMA["anyOf"][:2]})]


_ACTIVATES = ("use_activation", "normalize", "activation", "softmax")


class PoolingBody(Body):
    """What all these routes take."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "add_special_tokens": (True,),
        "chat_template": (),
        "messages": (),
        "mm_processor_kwargs": (),
    }
    ignored: ClassVar[frozenset[str]] = frozenset({"input_type", "embedding_types", "metadata", "request_id"})

    model: str | None = None
    user: str | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: Literal["left", "right"] | None = None
    use_activation: bool | None = None
    """false: no normalisation, no sigmoid or softmax."""
    normalize: bool | None = None
    activation: bool | None = None
    softmax: bool | None = None
    """Older names of use_activation."""
    priority: int | None = None
    cache_salt: Annotated[str | None, Field(min_length=1, max_length=MAX_SALT_LENGTH)] = None

    def params(self, task: PoolingTask | None = None, dimensions: int | None = None) -> PoolingParams:
        return PoolingParams(
            task=task,
            dimensions=dimensions,
            use_activation=self._activates(),
            truncate_prompt_tokens=self.truncate_prompt_tokens,
            truncation_side=self.truncation_side or "right",
        )

    def _activates(self) -> bool | None:
        stated = {name: getattr(self, name) for name in _ACTIVATES if getattr(self, name) is not None}
        if len(set(stated.values())) > 1:
            first = next(iter(stated))
            other = next(name for name, value in stated.items() if value != stated[first])
            raise RequestError(
                f"{first} and {other} are names of one wish and say different things; give one.", param=other
            )
        return next(iter(stated.values()), None)


class EmbeddingBody(PoolingBody):
    """Texts, or token ids, to embed."""

    input: Input = None
    encoding_format: Literal["float", "base64"] | None = None
    """base64: of little-endian float32."""
    dimensions: int | None = None
    prompt_name: str | None = None
    """One of the model's own prompts, put before each text."""


class RawPoolingBody(EmbeddingBody):
    """Texts, or token ids, for whatever the model makes of them: numbers as they are."""

    task: PoolingTask | None = None


class ClassifyBody(PoolingBody):
    """Texts, or token ids, to score labels for."""

    input: Input = None


class ScoreBody(PoolingBody):
    """Two texts, one and many, or equally many."""

    text_1: Texts = None
    text_2: Texts = None
    queries: Texts = None
    """Another name of text_1."""
    documents: Texts = None
    """Another name of text_2."""


class RerankBody(PoolingBody):
    """A query, and documents to be put in order."""

    query: str
    documents: list[str | dict[str, Any]]
    """Texts, or objects with a text."""
    top_n: int | None = None
    return_documents: bool | None = None


class PoolingUsage(msgspec.Struct):
    """What was read; nothing is written."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingData(msgspec.Struct, kw_only=True):
    """One input's embedding."""

    index: int
    object: str = "embedding"
    embedding: list[float] | str


class EmbeddingReply(msgspec.Struct, kw_only=True):
    """In the order of the inputs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[EmbeddingData]
    usage: PoolingUsage


class RawPoolingData(msgspec.Struct, kw_only=True):
    """One input's numbers, or a list of them for each token."""

    index: int
    object: str = "pooling"
    data: list[float | list[float]] | str


class RawPoolingReply(msgspec.Struct, kw_only=True):
    """In the order of the inputs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[RawPoolingData]
    usage: PoolingUsage


class ClassifyData(msgspec.Struct, kw_only=True):
    """One input's scores, and the label with the highest."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyReply(msgspec.Struct, kw_only=True):
    """In the order of the inputs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[ClassifyData]
    usage: PoolingUsage


class ScoreData(msgspec.Struct, kw_only=True):
    """One pair's score."""

    index: int
    object: str = "score"
    score: float


class ScoreReply(msgspec.Struct, kw_only=True):
    """In the order of the pairs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[ScoreData]
    usage: PoolingUsage


class RerankDocument(msgspec.Struct):
    """A document as it came."""

    text: str


class RerankItem(msgspec.Struct, kw_only=True):
    """One document and how well it answers the query."""

    index: int
    document: RerankDocument | UnsetType = UNSET
    relevance_score: float


class RerankReply(msgspec.Struct, kw_only=True):
    """Best first."""

    id: str
    model: str
    usage: PoolingUsage
    results: list[RerankItem]


class EmbedBody(Body):
    """Text Embeddings Inference's own route: texts to embed."""

    inputs: Texts = None
    normalize: bool | None = None
    truncate: bool | None = None
    """Cut what is too long instead of refusing it."""
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
