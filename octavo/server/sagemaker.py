"""What Amazon SageMaker asks of a container: GET /ping and POST /invocations."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from octavo.base.errors import RequestError
from octavo.server.body import Body, parse, read_json
from octavo.server.health import HealthReply, check_engine
from octavo.server.openai.chat import create_chat_completion
from octavo.server.openai.completions import create_completion
from octavo.server.openai.schema.chat import ChatReply
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


class InvocationBody(Body):
    """A chat body, which has messages, or a completions body, which has a prompt."""


def add_sagemaker_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.get("/ping", tags=["sagemaker"], summary="The engine works", **page.describe(HealthReply))
    async def ping(_: Request) -> Response:
        await check_engine(serving)
        return json_reply(HealthReply("ok"))

    @app.post(
        "/invocations",
        tags=["sagemaker"],
        summary="Answer a conversation or continue a prompt",
        **page.describe(ChatReply, body=InvocationBody),
    )
    async def invocations(request: Request) -> Response:
        return await invoke(serving, request)


async def invoke(serving: Serving, request: Request) -> Response:
    """Hand the body to the route that it is for."""
    body = await read_json(request)
    document = parse(body)
    is_chat, is_prompt = "messages" in document, "prompt" in document
    if is_chat == is_prompt:
        raise RequestError("Send either messages, to chat, or a prompt, to have it continued.")
    again = Request(request.scope, _replayed(body, request.receive))
    return await (create_chat_completion if is_chat else create_completion)(serving, again)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that has been read once more, then what `receive` gives."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return left.pop() if left else await receive()

    return receive_again
