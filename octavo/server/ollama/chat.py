"""POST /api/chat."""

from __future__ import annotations

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from octavo.base.clock import monotonic
from octavo.server.body import read
from octavo.server.conversation import admit_conversation
from octavo.server.ollama.answer import AnswerWriter
from octavo.server.ollama.lines import line_stream
from octavo.server.ollama.names import check_name
from octavo.server.ollama.render import render_ollama_chat
from octavo.server.ollama.schema.chat import (
    OllamaAnswerMessage,
    OllamaChatBody,
    OllamaChatReply,
    OllamaMadeCall,
)
from octavo.server.ollama.times import now
from octavo.server.openai.logprobs import weight_of
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving

ROLE = "assistant"


async def answer_chat(serving: Serving, request: Request) -> Response:
    began = monotonic()
    body, num_bytes = await read(request, OllamaChatBody)
    check_name(serving, body.model)
    if not body.messages:
        return json_reply(_loaded(body))
    question = await off_loop_if_long(num_bytes, render_ollama_chat, serving, body)
    reply_id = f"ollama-{request_id_of(request)}"
    conversation = await admit_conversation(serving, question.body, question.rendered, reply_id)
    writer = ChatAnswer(serving, body, conversation, began)
    if body.wants_stream:
        return line_stream(writer.lines())
    (answer,) = await conversation.answers(request.receive)
    return await off_loop_if_long(weight_of(answer.logprobs), lambda: json_reply(writer.whole(answer)))


class ChatAnswer(AnswerWriter[OllamaChatReply]):
    """Answers are messages."""

    def _says(self, content: str, thinking: str, calls: list[OllamaMadeCall]) -> OllamaChatReply:
        message = OllamaAnswerMessage(ROLE, content, thinking or UNSET, calls or UNSET)
        return OllamaChatReply(model=self._model, created_at=now(), message=message)


def _loaded(body: OllamaChatBody) -> OllamaChatReply:
    """Without messages the model is to be loaded or unloaded; here it stays loaded."""
    return OllamaChatReply(
        model=body.model,
        created_at=now(),
        message=OllamaAnswerMessage(ROLE, ""),
        done=True,
        done_reason=body.load_reason,
    )
