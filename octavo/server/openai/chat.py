"""POST /v1/chat/completions: hops 1, 2 and 8 of a conversation."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from octavo.server.body import read
from octavo.server.conversation import open_conversation
from octavo.server.openai.chat_writer import ChatWriter
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving
from octavo.server.stream import EventStream


async def create_chat_completion(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, ChatBody)
    model = serving.check_model(body.model)
    reply_id = f"chatcmpl-{request_id_of(request)}"
    conversation = await open_conversation(serving, body, num_bytes, reply_id)
    writer = ChatWriter(serving, body, conversation, reply_id, model)
    if body.wants_stream:
        return EventStream(writer.frames())
    answers = await conversation.answers(request.receive)
    return await off_loop_if_long(writer.weight(answers), lambda: json_reply(writer.reply(answers)))
