"""POST /api/generate."""

from __future__ import annotations

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from octavo.base.clock import monotonic
from octavo.server.body import read
from octavo.server.conversation import Conversation, admit_conversation
from octavo.server.ollama.answer import AnswerWriter
from octavo.server.ollama.lines import line_stream
from octavo.server.ollama.names import check_name
from octavo.server.ollama.render import render_ollama_generate
from octavo.server.ollama.schema.chat import OllamaMadeCall
from octavo.server.ollama.schema.generate import OllamaGenerateBody, OllamaGenerateReply
from octavo.server.ollama.times import now
from octavo.server.openai.logprobs import weight_of
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of, weighed
from octavo.server.serving import Serving


async def answer_prompt(serving: Serving, request: Request) -> Response:
    began = monotonic()
    body, num_bytes = await read(request, OllamaGenerateBody)
    check_name(serving, body.model)
    if not body.prompt:
        return json_reply(_loaded(body))
    question = await off_loop_if_long(
        weighed(num_bytes, body.template), render_ollama_generate, serving, body
    )
    reply_id = f"ollama-{request_id_of(request)}"
    conversation = await admit_conversation(serving, question.body, question.rendered, reply_id)
    writer = PromptAnswer(serving, body, conversation, began, gives_context=not body.raw)
    if body.wants_stream:
        return line_stream(writer.lines())
    (answer,) = await conversation.answers(request.receive)
    return await off_loop_if_long(weight_of(answer.logprobs), lambda: json_reply(writer.whole(answer)))


class PromptAnswer(AnswerWriter[OllamaGenerateReply]):
    """Answers are text, and with the last of it come the tokens so far."""

    def __init__(
        self,
        serving: Serving,
        body: OllamaGenerateBody,
        conversation: Conversation,
        began: float,
        *,
        gives_context: bool,
    ) -> None:
        super().__init__(serving, body, conversation, began)
        self._gives_context = gives_context

    def _says(self, content: str, thinking: str, calls: list[OllamaMadeCall]) -> OllamaGenerateReply:
        return OllamaGenerateReply(
            model=self._model,
            created_at=now(),
            response=content,
            thinking=thinking or UNSET,
            tool_calls=calls or UNSET,
        )

    def _ended(self, reply: OllamaGenerateReply, finish_reason: str) -> OllamaGenerateReply:
        if self._gives_context:
            reply.context = self._conversation.prompt_token_ids + self._token_ids
        return super()._ended(reply, finish_reason)


def _loaded(body: OllamaGenerateBody) -> OllamaGenerateReply:
    """Without a prompt the model is to be loaded or unloaded; here it stays loaded."""
    return OllamaGenerateReply(
        model=body.model, created_at=now(), response="", done=True, done_reason=body.load_reason
    )
