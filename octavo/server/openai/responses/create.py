"""POST /v1/responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from octavo.server.auth import owner_of
from octavo.server.body import read
from octavo.server.conversation import open_conversation
from octavo.server.openai.responses.background import Job
from octavo.server.openai.responses.body import ResponsesBody
from octavo.server.openai.responses.history import continued_items, resolved_items
from octavo.server.openai.responses.ids import response_id_for
from octavo.server.openai.responses.items import input_items
from octavo.server.openai.responses.library import Library
from octavo.server.openai.responses.options import chat_body, check_body, our_names
from octavo.server.openai.responses.reply import Item, ResponseReply
from octavo.server.openai.responses.run import Run
from octavo.server.openai.responses.settings import first_state, summary_wish
from octavo.server.openai.responses.store import StoredResponse
from octavo.server.openai.responses.token_logprobs import TokenLogprobs
from octavo.server.openai.responses.translate import to_messages
from octavo.server.openai.responses.truncate import fitting
from octavo.server.openai.responses.writer import ResponseWriter
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.replies import LONG_BODY_BYTES, json_reply, off_loop_if_long, request_id_of, weighed
from octavo.server.serving import Serving
from octavo.server.stream import EventStream
from octavo.server.tenants.caller import current_caller


async def create_response(serving: Serving, library: Library, request: Request) -> Response:
    body, num_bytes = await read(request, ResponsesBody)
    model = serving.check_model(body.model)
    check_body(body)
    is_kept = library.keeps(body)
    owner, response_id = owner_of(request), response_id_for(request_id_of(request))
    if body.background:
        library.background.check_room(owner)
    before = await continued_items(library, owner, body.previous_response_id)
    sent = input_items(body.input, response_id)
    own = await resolved_items(library, owner, sent, before)
    if before or own != sent:  # What was kept may be long.
        num_bytes = max(num_bytes, LONG_BODY_BYTES)
    with our_names():
        chat = await _chat(serving, body, [*before, *own], num_bytes)
        conversation = await open_conversation(serving, chat, num_bytes, response_id)
    reply = first_state(serving, body, response_id, model, is_kept=is_kept)
    stored = StoredResponse(owner=owner, input=own, reply=reply)
    run = Run(
        conversation,
        _writer(serving, body, chat, reply),
        _keeper(library, stored),
        has_timings=bool(body.timings),
    )
    if body.background:
        return await _in_background(library, body, Job(stored, run, current_caller().tenant))
    if body.wants_stream:
        return EventStream(run.frames(), ending=b"", error_frame=run.error_frame)
    return json_reply(await run.whole(request.receive))


async def _chat(serving: Serving, body: ResponsesBody, items: list[Item], num_bytes: int) -> ChatBody:
    chat = chat_body(body, to_messages(body.instructions, items))
    if body.truncation == "auto":
        return await off_loop_if_long(weighed(num_bytes, chat.chat_template), fitting, serving, chat)
    return chat


def _writer(serving: Serving, body: ResponsesBody, chat: ChatBody, reply: ResponseReply) -> ResponseWriter:
    logprobs = TokenLogprobs(serving.tokenizer, chat.num_shown_logprobs) if chat.logprobs else None
    return ResponseWriter(reply, has_summary=summary_wish(body.reasoning) is not None, logprobs=logprobs)


def _keeper(library: Library, stored: StoredResponse) -> Callable[[], Awaitable[None]]:
    async def keep() -> None:
        if stored.reply.store:
            await library.keep(stored)

    return keep


async def _in_background(library: Library, body: ResponsesBody, job: Job) -> Response:
    await library.run(job)
    if body.wants_stream:
        return EventStream(job.log.follow(-1), ending=b"", error_frame=job.error_frame)
    return json_reply(job.stored.reply)
