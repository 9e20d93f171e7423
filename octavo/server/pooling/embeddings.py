"""POST /v1/embeddings and /pooling: a model's numbers, as they are or as one embedding for each text."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from octavo.engine.pooling.outputs import PoolingRequestOutput, floats_of
from octavo.engine.pooling.refuse import cannot_pool, cannot_task
from octavo.messages.pooling import PoolingParams
from octavo.messages.result import Numbers
from octavo.server.body import read
from octavo.server.list_reply import list_reply
from octavo.server.pooling.inputs import inputs_of, texts_of
from octavo.server.pooling.run import run_inputs, usage_of
from octavo.server.pooling.schema import (
    EmbedBody,
    EmbeddingBody,
    EmbeddingData,
    EmbeddingReply,
    RawPoolingBody,
    RawPoolingData,
    RawPoolingReply,
)
from octavo.server.replies import request_id_of
from octavo.server.serving import Serving

FLOAT_BYTES = 4


async def create_embeddings(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, EmbeddingBody)
    model = serving.check_model(body.model)
    check_embeds(serving, "/v1/embeddings")
    outputs = await run_inputs(
        serving,
        request,
        inputs_of(body.input),
        body.params("embed", body.dimensions),
        num_bytes=num_bytes,
        body=body,
        prompt_name=body.prompt_name,
    )
    is_base64 = body.encoding_format == "base64"
    data = (
        EmbeddingData(
            index=index,
            embedding=in_base64(one.outputs.numbers) if is_base64 else floats_of(one.outputs.numbers),
        )
        for index, one in enumerate(outputs)
    )
    reply = EmbeddingReply(
        id=f"embd-{request_id_of(request)}",
        created=int(time.time()),
        model=model,
        data=[],
        usage=usage_of(outputs),
    )
    return await list_reply(data, num_numbers(outputs), whole=reply)


async def pool(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, RawPoolingBody)
    model = serving.check_model(body.model)
    outputs = await run_inputs(
        serving,
        request,
        inputs_of(body.input),
        body.params(body.task, body.dimensions),
        num_bytes=num_bytes,
        body=body,
        prompt_name=body.prompt_name,
    )
    is_base64 = body.encoding_format == "base64"
    data = (
        RawPoolingData(
            index=index, data=in_base64(one.outputs.numbers) if is_base64 else rows_of(one.outputs.numbers)
        )
        for index, one in enumerate(outputs)
    )
    reply = RawPoolingReply(
        id=f"pool-{request_id_of(request)}",
        created=int(time.time()),
        model=model,
        data=[],
        usage=usage_of(outputs),
    )
    return await list_reply(data, num_numbers(outputs), whole=reply)


async def embed_plainly(serving: Serving, request: Request) -> Response:
    """Text Embeddings Inference's POST /embed: lists of numbers and nothing else."""
    body, num_bytes = await read(request, EmbedBody)
    check_embeds(serving, "/embed")
    params = PoolingParams(
        task="embed",
        dimensions=body.dimensions,
        use_activation=body.normalize,
        truncate_prompt_tokens=-1 if body.truncate else None,
        truncation_side="left" if (body.truncation_direction or "").lower() == "left" else "right",
    )
    texts = texts_of(body.inputs, "inputs")
    outputs = await run_inputs(
        serving, request, texts, params, num_bytes=num_bytes, prompt_name=body.prompt_name
    )
    return await list_reply((floats_of(one.outputs.numbers) for one in outputs), num_numbers(outputs))


def check_embeds(serving: Serving, route: str) -> None:
    """Raise RequestError unless the model makes embeddings."""
    facts = serving.engine.facts.pooling
    if facts is None:
        raise cannot_pool(route)
    if not facts.can_embed:
        raise cannot_task(route, facts)


def num_numbers(outputs: Sequence[PoolingRequestOutput]) -> int:
    """In all of them together."""
    return sum(len(one.outputs.numbers.data) for one in outputs) // FLOAT_BYTES


def in_base64(numbers: Numbers) -> str:
    return b64encode(numbers.data).decode()


def rows_of(numbers: Numbers) -> list[float | list[float]]:
    flat = floats_of(numbers)
    if len(numbers.shape) == 1:
        return [*flat]
    width = numbers.shape[1]
    return [flat[start : start + width] for start in range(0, len(flat), width)]
