"""The OpenAI routes and how the OpenAPI page describes them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openai.chat import create_chat_completion
from octavo.server.openai.completions import create_completion
from octavo.server.openai.models import list_models, model_card
from octavo.server.openai.schema.chat import ChatBody, ChatChunk, ChatReply
from octavo.server.openai.schema.completion import CompletionBody, CompletionReply
from octavo.server.openai.schema.models import ModelCard, ModelList
from octavo.server.openapi import described
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


def openai_routes(serving: Serving) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["openai"])

    @router.get("/models", summary="List models", **described(ModelList))
    async def models(_: Request) -> Response:
        return json_reply(list_models(serving))

    @router.get("/models/{model:path}", summary="Show a model", **described(ModelCard, path_names=("model",)))
    async def model(request: Request) -> Response:
        return json_reply(model_card(serving, request.path_params["model"]))

    @router.post(
        "/completions",
        summary="Continue prompts",
        **described(CompletionReply, body=CompletionBody, chunk=CompletionReply),
    )
    async def completions(request: Request) -> Response:
        return await create_completion(serving, request)

    @router.post(
        "/chat/completions",
        summary="Answer a conversation",
        **described(ChatReply, body=ChatBody, chunk=ChatChunk),
    )
    async def chat_completions(request: Request) -> Response:
        return await create_chat_completion(serving, request)

    return router
