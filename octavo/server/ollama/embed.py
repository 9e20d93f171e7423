"""POST /api/embed and /api/embeddings."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from octavo.engine.pooling.outputs import PoolingRequestOutput, floats_of
from octavo.messages.pooling import PoolingParams
from octavo.server.body import read
from octavo.server.list_reply import list_reply
from octavo.server.ollama.names import check_name
from octavo.server.ollama.schema.embed import OllamaEmbedBody, OllamaEmbeddingsReply, OllamaEmbedReply
from octavo.server.pooling.embeddings import check_embeds, num_numbers
from octavo.server.pooling.inputs import texts_of
from octavo.server.pooling.run import run_inputs, usage_of
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


async def embed(serving: Serving, request: Request) -> Response:
    began = time.monotonic_ns()
    body, num_bytes = await read(request, OllamaEmbedBody)
    outputs = await _run(serving, request, body, num_bytes)
    reply = OllamaEmbedReply(
        model=body.wanted,
        embeddings=[],
        total_duration=time.monotonic_ns() - began,
        prompt_eval_count=usage_of(outputs).prompt_tokens,
    )
    embeddings = (floats_of(one.outputs.numbers) for one in outputs)
    return await list_reply(embeddings, num_numbers(outputs), whole=reply, name="embeddings")


async def embed_one(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, OllamaEmbedBody)
    outputs = await _run(serving, request, body, num_bytes)
    return json_reply(OllamaEmbeddingsReply(floats_of(outputs[0].outputs.numbers)))


async def _run(
    serving: Serving, request: Request, body: OllamaEmbedBody, num_bytes: int
) -> list[PoolingRequestOutput]:
    served = check_name(serving, body.wanted)
    check_embeds(serving, f"Embedding with {served!r}")
    name = "prompt" if body.input is None else "input"
    texts = texts_of(body.prompt if body.input is None else body.input, name)
    params = PoolingParams(
        task="embed",
        dimensions=body.dimensions,
        truncate_prompt_tokens=None if body.truncate is False else -1,
    )
    return await run_inputs(serving, request, texts, params, num_bytes=num_bytes)
