"""The routes of models that answer with numbers, and how the OpenAPI page describes them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openapi import ApiPage
from octavo.server.pooling.embeddings import create_embeddings, pool
from octavo.server.pooling.schema import (
    ClassifyBody,
    ClassifyReply,
    EmbeddingBody,
    EmbeddingReply,
    RawPoolingBody,
    RawPoolingReply,
    RerankBody,
    RerankReply,
    ScoreBody,
    ScoreReply,
)
from octavo.server.pooling.scores import classify, rerank, score
from octavo.server.serving import Serving

ROUTES = (
    (("/v1/embeddings",), create_embeddings, EmbeddingBody, EmbeddingReply, "Embed texts"),
    (("/pooling",), pool, RawPoolingBody, RawPoolingReply, "The model's numbers as they are"),
    (("/classify", "/v1/classify"), classify, ClassifyBody, ClassifyReply, "Score labels"),
    (("/score", "/v1/score"), score, ScoreBody, ScoreReply, "How well texts fit each other"),
    (("/rerank", "/v1/rerank", "/v2/rerank"), rerank, RerankBody, RerankReply, "Put documents in order"),
)
"""Paths, who answers, body, reply and what it is for."""


def add_pooling_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    for paths, answer, body, reply, summary in ROUTES:

        async def route(request: Request, answer=answer) -> Response:  # type: ignore[no-untyped-def]
            found: Response = await answer(serving, request)
            return found

        for path in paths:
            app.post(path, tags=["pooling"], summary=summary, **page.describe(reply, body=body))(route)
