"""The Ollama routes and how the OpenAPI page describes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from octavo.server.body import Body, read
from octavo.server.ollama.chat import answer_chat
from octavo.server.ollama.embed import embed, embed_one
from octavo.server.ollama.errors import OllamaError
from octavo.server.ollama.generate import answer_prompt
from octavo.server.ollama.lines import NDJSON
from octavo.server.ollama.models import list_running, list_tags, show_model
from octavo.server.ollama.orders import REFUSED, pull, refuse
from octavo.server.ollama.schema.chat import OllamaChatBody, OllamaChatReply
from octavo.server.ollama.schema.embed import OllamaEmbedBody, OllamaEmbeddingsReply, OllamaEmbedReply
from octavo.server.ollama.schema.generate import OllamaGenerateBody, OllamaGenerateReply
from octavo.server.ollama.schema.models import (
    ModelPage,
    ModelTags,
    OllamaNameBody,
    OllamaStatus,
    OllamaVersion,
    RunningModels,
)
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply
from octavo.server.serving import Serving

SPOKEN_VERSION = "0.12.11"
"""The version of Ollama whose API this is; clients ask before they use newer fields."""

GREETING = "Octavo is running. It speaks the APIs of OpenAI, Anthropic, Ollama and TGI; see /docs."


def add_ollama_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    _add_answers(app, serving, page)
    _add_models(app, serving, page)
    _add_orders(app, serving, page)

    async def greet(_: Request) -> Response:
        return PlainTextResponse(GREETING)

    app.get("/", tags=["info"], summary="Something runs here", response_class=PlainTextResponse)(greet)


def _add_answers(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.post(
        "/api/chat",
        tags=["ollama"],
        summary="Answer a conversation",
        **_describe(page, OllamaChatReply, body=OllamaChatBody, chunk=OllamaChatReply),
    )
    async def chat(request: Request) -> Response:
        return await answer_chat(serving, request)

    @app.post(
        "/api/generate",
        tags=["ollama"],
        summary="Answer a prompt",
        **_describe(page, OllamaGenerateReply, body=OllamaGenerateBody, chunk=OllamaGenerateReply),
    )
    async def generate(request: Request) -> Response:
        return await answer_prompt(serving, request)

    @app.post(
        "/api/embed",
        tags=["ollama"],
        summary="Embed texts",
        **_describe(page, OllamaEmbedReply, body=OllamaEmbedBody),
    )
    async def embed_texts(request: Request) -> Response:
        return await embed(serving, request)

    @app.post(
        "/api/embeddings",
        tags=["ollama"],
        summary="Embed a text",
        **_describe(page, OllamaEmbeddingsReply, body=OllamaEmbedBody),
    )
    async def embed_text(request: Request) -> Response:
        return await embed_one(serving, request)


def _add_models(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    async def tags(_: Request) -> Response:
        return json_reply(list_tags(serving))

    async def running(_: Request) -> Response:
        return json_reply(list_running(serving))

    async def version(_: Request) -> Response:
        return json_reply(OllamaVersion(SPOKEN_VERSION, serving.version))

    for path, route, reply, summary in (
        ("/api/tags", tags, ModelTags, "List models"),
        ("/api/ps", running, RunningModels, "List loaded models"),
        ("/api/version", version, OllamaVersion, "The version of the Ollama API"),
    ):
        app.get(path, tags=["ollama"], summary=summary, **_describe(page, reply))(route)

    @app.post(
        "/api/show",
        tags=["ollama"],
        summary="Show a model",
        **_describe(page, ModelPage, body=OllamaNameBody),
    )
    async def show(request: Request) -> Response:
        body, _ = await read(request, OllamaNameBody)
        return json_reply(show_model(serving, body.wanted))


def _add_orders(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.post(
        "/api/pull",
        tags=["ollama"],
        summary="See that a model is there",
        **_describe(page, OllamaStatus, body=OllamaNameBody, chunk=OllamaStatus),
    )
    async def pull_model(request: Request) -> Response:
        body, _ = await read(request, OllamaNameBody)
        status = pull(serving, body)
        return json_reply(status) if body.stream is False else _one_line(status)

    for path, (method, _) in REFUSED.items():
        name = "digest" if "{digest}" in path else None
        described = _describe(page, OllamaError, path_name=name)
        app.api_route(
            path,
            methods=[method],
            tags=["ollama"],
            summary="Refused: models are not managed here",
            **described,
        )(_refusing(path))


def _describe(
    page: ApiPage,
    reply: type[msgspec.Struct],
    *,
    body: type[Body] | None = None,
    chunk: type[msgspec.Struct] | None = None,
    path_name: str | None = None,
) -> dict[str, Any]:
    return page.describe(
        reply, body=body, chunk=chunk, path_name=path_name, failure=OllamaError, stream_type=NDJSON
    )


def _refusing(path: str) -> Callable[[Request], Awaitable[Response]]:
    async def refused(_: Request) -> Response:
        refuse(path)

    return refused


def _one_line(reply: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(reply) + b"\n", media_type=NDJSON)
