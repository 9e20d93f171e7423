"""A body's inputs in the engine, from admission to the last answer, with its measures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request

from octavo.base.errors import EngineError, ErrorCode, OctavoError
from octavo.engine.pooling.outputs import PoolingRequestOutput
from octavo.engine.pooling.prepare import Input
from octavo.messages.pooling import PoolingParams
from octavo.server.disconnect import end_tasks, while_connected
from octavo.server.pooling.schema import PoolingBody, PoolingUsage
from octavo.server.replies import off_loop_if_long, request_id_of
from octavo.server.serving import Serving
from octavo.server.tenants.caller import current_caller


async def run_inputs(
    serving: Serving,
    request: Request,
    inputs: Sequence[Input],
    params: PoolingParams,
    *,
    num_bytes: int,
    body: PoolingBody | None = None,
    prompt_name: str | None = None,
) -> list[PoolingRequestOutput]:
    """Answers in the order of the inputs. num_bytes: of the body, which is tokenized in a thread if long."""
    caller = current_caller()
    priority = (body.priority if body else None) or 0
    caller.check_priority(priority)
    try:
        prepared = await off_loop_if_long(
            num_bytes,
            serving.engine.prepare_many,
            inputs,
            params,
            request_id_of(request),
            priority=priority,
            cache_salt=caller.salt(body.cache_salt if body else None),
            terms=caller.terms,
            prompt_name=prompt_name,
        )
        streams = serving.engine.encode_prepared(prepared)
    except OctavoError as error:
        if serving.metrics is not None:
            serving.metrics.rejected(error.code.value.code)
        raise
    return await while_connected(request.receive, _all(serving, streams))


async def _all(
    serving: Serving, streams: Sequence[AsyncIterator[PoolingRequestOutput]]
) -> list[PoolingRequestOutput]:
    tasks = [asyncio.create_task(_only(serving, stream)) for stream in streams]
    outputs: list[PoolingRequestOutput] = []
    end_reason = "abort"
    try:
        for task in tasks:
            outputs.append(await task)
    except Exception:
        end_reason = "error"
        raise
    finally:
        await end_tasks(*tasks)
        _measure(serving, outputs, len(tasks) - len(outputs), end_reason)
    return outputs


async def _only(serving: Serving, stream: AsyncIterator[PoolingRequestOutput]) -> PoolingRequestOutput:
    """The one output of a stream."""
    try:
        async for output in stream:
            return output
    except EngineError as error:
        if serving.lifecycle.is_draining:
            message = "The server shut down before the answer was there."
            raise EngineError(message, code=ErrorCode.SHUTTING_DOWN) from error
        raise
    raise EngineError("The engine ended the request before its answer was there.")


def _measure(serving: Serving, outputs: list[PoolingRequestOutput], num_failed: int, end_reason: str) -> None:
    metrics = serving.metrics
    if metrics is None:
        return
    for output in outputs:
        metrics.samples_ended(["stop"])
        if output.metrics is not None:
            metrics.request_finished(
                output.metrics, n=1, max_tokens=None, num_cached_tokens=output.num_cached_tokens
            )
    if num_failed:
        metrics.samples_ended([end_reason] * num_failed)


def usage_of(outputs: Sequence[PoolingRequestOutput]) -> PoolingUsage:
    total = sum(len(output.prompt_token_ids) for output in outputs)
    return PoolingUsage(total, total)
