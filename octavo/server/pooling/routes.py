"""The routes of models that answer with numbers, and how the OpenAPI page describes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openapi import ApiPage
from octavo.server.pooling.embeddings import create_embeddings, embed_plainly, pool
from octavo.server.pooling.schema import (
    ClassifyBody,
    ClassifyReply,
    EmbedBody,
    EmbeddingBody,
    EmbeddingData,
    EmbeddingReply,
    PoolingBody,
    RawPoolingBody,
    RawPoolingReply,
    RerankBody,
    RerankReply,
    ScoreBody,
    ScoreReply,
)
from octavo.server.pooling.scores import classify, rerank, score
from octavo.server.serving import Serving

Answer = Callable[[Serving, Request], Awaitable[Response]]

ROUTES: tuple[tuple[tuple[str, ...], Answer, type[PoolingBody], type[msgspec.Struct], str], ...] = (
    (("/v1/embeddings",), create_embeddings, EmbeddingBody, EmbeddingReply, "Embed texts"),
    (("/pooling",), pool, RawPoolingBody, RawPoolingReply, "The model's numbers as they are"),
    (("/classify", "/v1/classify"), classify, ClassifyBody, ClassifyReply, "Score labels"),
    (("/score", "/v1/score"), score, ScoreBody, ScoreReply, "How well texts fit each other"),
    (("/rerank", "/v1/rerank", "/v2/rerank"), rerank, RerankBody, RerankReply, "Put documents in order"),
)
"""Paths, who answers, body, reply and what it is for."""


def add_pooling_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    for paths, answer, body, reply, summary in ROUTES:
        for path in paths:
            described = page.describe(reply, body=body)
            app.post(path, tags=["pooling"], summary=summary, **described)(_route(serving, answer))

    @app.post(
        "/embed",
        tags=["tgi"],
        summary="Embed texts: nothing but the numbers",
        **page.describe(EmbeddingData, body=EmbedBody, is_list=True),
    )
    async def embed(request: Request) -> Response:
        return await embed_plainly(serving, request)


def _route(serving: Serving, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        return await answer(serving, request)

    return route
