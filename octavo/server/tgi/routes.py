"""The TGI routes and how the OpenAPI page describes them."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.body import read
from octavo.server.disconnect import while_connected
from octavo.server.openai.logprobs import weight_of
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply, off_loop_if_long, request_id_of
from octavo.server.serving import Serving
from octavo.server.slow_parts import with_slow_parts
from octavo.server.stream import EventStream, frame
from octavo.server.submit import Submission, submit
from octavo.server.tgi.answer import TgiWriter
from octavo.server.tgi.errors import TgiError, tgi_error
from octavo.server.tgi.render import Continuation, render_tgi
from octavo.server.tgi.schema import TgiBody, TgiInfo, TgiReply, TgiStreamEvent


def add_tgi_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.post(
        "/generate",
        tags=["tgi"],
        summary="Continue a text",
        **page.describe(TgiReply, body=TgiBody, failure=TgiError),
    )
    async def generate(request: Request) -> Response:
        body, num_bytes = await read(request, TgiBody)
        return json_reply(await _reply(serving, request, body, num_bytes))

    @app.post(
        "/generate_stream",
        tags=["tgi"],
        summary="Continue a text, token by token",
        **page.describe(TgiReply, body=TgiBody, chunk=TgiStreamEvent, failure=TgiError),
    )
    async def generate_stream(request: Request) -> Response:
        body, num_bytes = await read(request, TgiBody)
        return await _stream(serving, request, body, num_bytes)

    @app.post(
        "/",
        tags=["tgi"],
        summary="Continue a text, streamed or not",
        **page.describe(TgiReply, body=TgiBody, chunk=TgiStreamEvent, failure=TgiError, is_list=True),
    )
    async def either(request: Request) -> Response:
        body, num_bytes = await read(request, TgiBody)
        if body.stream:
            return await _stream(serving, request, body, num_bytes)
        reply = await _reply(serving, request, body, num_bytes)
        # Clients of this route expect a list: it could take several texts once.
        return Response(msgspec.json.encode([reply]), media_type="application/json")

    @app.get(
        "/info", tags=["tgi"], summary="The model and its limits", **page.describe(TgiInfo, failure=TgiError)
    )
    async def info(_: Request) -> Response:
        return json_reply(_info(serving))


async def _reply(serving: Serving, request: Request, body: TgiBody, num_bytes: int) -> TgiReply:
    asked = await off_loop_if_long(num_bytes, render_tgi, serving, body, is_streamed=False)
    submission = await _submit(serving, request, asked)
    (output,) = await while_connected(request.receive, submission.results())
    weight = weight_of(output.prompt_logprobs) + sum(weight_of(part.logprobs) for part in output.outputs)
    return await off_loop_if_long(weight, TgiWriter(serving.tokenizer, asked).reply, output)


async def _stream(serving: Serving, request: Request, body: TgiBody, num_bytes: int) -> Response:
    asked = await off_loop_if_long(num_bytes, render_tgi, serving, body, is_streamed=True)
    submission = await _submit(serving, request, asked)
    frames = TgiWriter(serving.tokenizer, asked).frames(submission)
    return EventStream(frames, error_frame=lambda error: frame(tgi_error(error)[1]), ending=b"")


async def _submit(serving: Serving, request: Request, asked: Continuation) -> Submission:
    rendered = await with_slow_parts(serving, asked.rendered)
    return await submit(serving, rendered, f"tgi-{request_id_of(request)}")


def _info(serving: Serving) -> TgiInfo:
    config = serving.engine.config
    limit = serving.engine.max_request_tokens
    return TgiInfo(
        model_id=serving.model_names[0],
        model_dtype=f"torch.{config.model.dtype}",
        model_device_type=config.model.device,
        max_concurrent_requests=config.schedule.max_num_seqs or 0,
        max_input_tokens=limit - 1,
        max_total_tokens=limit,
        version=serving.version,
    )
