"""The OpenAI routes and how the OpenAPI page describes them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openai.chat import create_chat_completion
from octavo.server.openai.completions import create_completion
from octavo.server.openai.models import list_models, model_card
from octavo.server.openai.render import render_chat_completion, render_text_completion
from octavo.server.openai.schema.chat import ChatBody, ChatChunk, ChatReply
from octavo.server.openai.schema.completion import CompletionBody, CompletionReply
from octavo.server.openai.schema.models import ModelCard, ModelList
from octavo.server.openai.schema.render import RenderReply
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


def add_openai_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.get("/v1/models", tags=["openai"], summary="List models", **page.describe(ModelList))
    async def models(_: Request) -> Response:
        return json_reply(list_models(serving))

    @app.get(
        "/v1/models/{model:path}",
        tags=["openai"],
        summary="Show a model",
        **page.describe(ModelCard, path_name="model"),
    )
    async def model(request: Request) -> Response:
        return json_reply(model_card(serving, request.path_params["model"]))

    @app.post(
        "/v1/completions",
        tags=["openai"],
        summary="Continue prompts",
        **page.describe(CompletionReply, body=CompletionBody, chunk=CompletionReply),
    )
    async def completions(request: Request) -> Response:
        return await create_completion(serving, request)

    @app.post(
        "/v1/chat/completions",
        tags=["openai"],
        summary="Answer a conversation",
        **page.describe(ChatReply, body=ChatBody, chunk=ChatChunk),
    )
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(serving, request)

    @app.post(
        "/v1/completions/render",
        tags=["openai"],
        summary="What prompts become, without an answer",
        **page.describe(RenderReply, body=CompletionBody),
    )
    async def completions_render(request: Request) -> Response:
        return await render_text_completion(serving, request)

    @app.post(
        "/v1/chat/completions/render",
        tags=["openai"],
        summary="What a conversation becomes, without an answer",
        **page.describe(RenderReply, body=ChatBody),
    )
    async def chat_completions_render(request: Request) -> Response:
        return await render_chat_completion(serving, request)
