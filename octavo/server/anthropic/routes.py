"""The Anthropic routes and how the OpenAPI page describes them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.anthropic.body import CountTokensBody, MessagesBody
from octavo.server.anthropic.errors import AnthropicErrorReply, describe_anthropic
from octavo.server.anthropic.prompt import count_tokens, render_messages
from octavo.server.anthropic.reply import MessageReply, StreamEvent, TokenCount
from octavo.server.anthropic.writer import MessageWriter, failure_frame
from octavo.server.body import read
from octavo.server.conversation import admit_conversation
from octavo.server.errors import ErrorShape
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving
from octavo.server.stream import EventStream

ERROR_SHAPES: dict[str, ErrorShape] = {
    "/v1/messages": describe_anthropic,
    "/v1/messages/": describe_anthropic,
}


def add_anthropic_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.post(
        "/v1/messages",
        tags=["anthropic"],
        summary="Answer a conversation",
        **page.describe(MessageReply, body=MessagesBody, chunk=StreamEvent, failure=AnthropicErrorReply),
    )
    async def messages(request: Request) -> Response:
        return await create_message(serving, request)

    @app.post(
        "/v1/messages/count_tokens",
        tags=["anthropic"],
        summary="Count the tokens of a conversation",
        **page.describe(TokenCount, body=CountTokensBody, failure=AnthropicErrorReply),
    )
    async def count(request: Request) -> Response:
        body, num_bytes = await read(request, CountTokensBody)
        serving.check_model(body.model)
        return json_reply(TokenCount(await off_loop_if_long(num_bytes, count_tokens, serving, body)))


async def create_message(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, MessagesBody)
    model = serving.check_model(body.model)
    reply_id = f"msg_{request_id_of(request)}"
    prompt = await off_loop_if_long(num_bytes, render_messages, serving, body)
    conversation = await admit_conversation(serving, prompt.chat, prompt.rendered, reply_id)
    writer = MessageWriter(body, prompt, reply_id, model)
    if body.stream:
        return EventStream(writer.frames(conversation), error_frame=failure_frame, ending=b"")
    (answer,) = await conversation.whole_parts(request.receive)
    return json_reply(writer.reply(conversation, answer))
