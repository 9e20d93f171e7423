"""/v1/batches: create, list, show, cancel; and what stands behind them and /v1/files."""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.server.auth import owner_of
from octavo.server.body import read
from octavo.server.errors import quoted
from octavo.server.openai.batches.execute import LineExecutor, Recover
from octavo.server.openai.batches.lines import ENDPOINTS, LINE_BYTES
from octavo.server.openai.batches.queue import BatchQueue
from octavo.server.openai.batches.record import new_record
from octavo.server.openai.batches.schema import BatchBody, BatchList, BatchReply
from octavo.server.openai.batches.store import BatchStore
from octavo.server.openai.files.disk import Disk, files_folder
from octavo.server.openai.files.routes import add_file_routes
from octavo.server.openai.files.store import FileStore, Now
from octavo.server.openai.files.upload import Uploads
from octavo.server.openapi import ApiPage
from octavo.server.paging import page_of, page_query
from octavo.server.replies import json_reply
from octavo.server.serving import Serving

PATH = "/v1/batches"
DEFAULT_PAGE, MAX_PAGE = 20, 100
HEALTH_CHECK_S = 5.0


def add_file_and_batch_routes(app: FastAPI, serving: Serving, page: ApiPage, *, now: Now = time.time) -> None:
    """Both share one folder; the queue starts and ends with the server."""
    files = FileStore(
        Disk(files_folder(serving.server)),
        max_bytes=serving.server.max_stored_bytes,
        num_owners=len(serving.keys.owners()),
        now=now,
    )
    batches = BatchStore(files)
    config = serving.engine.config
    queue = BatchQueue(
        store=batches,
        files=files,
        executor=LineExecutor(
            app, until_healthy(serving), has_priorities=config.schedule.scheduling_policy == "priority"
        ),
        owners=serving.keys.owners,
        concurrency=config.server.batch_concurrency or 1,  # None only where nobody resolved the config.
        max_line_bytes=serving.server.max_body_bytes + LINE_BYTES,
    )
    serving.lifecycle.add_background(queue)
    add_file_routes(app, page, files, Uploads(files, serving.server.max_file_bytes))
    add_batch_routes(app, page, files, batches, queue)


def add_batch_routes(
    app: FastAPI, page: ApiPage, files: FileStore, batches: BatchStore, queue: BatchQueue
) -> None:
    @app.post(
        PATH,
        tags=["batches"],
        summary="Execute a file of requests",
        **page.describe(BatchReply, body=BatchBody),
    )
    async def create(request: Request) -> Response:
        body, _ = await read(request, BatchBody)
        owner = owner_of(request)
        _check_endpoint(app, body.endpoint)
        await asyncio.to_thread(_check_input, files, owner, body.input_file_id)
        record = new_record(
            owner=owner,
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            created_at=int(files.now()),
            metadata=body.metadata,
            output_life_s=body.output_expires_after.seconds if body.output_expires_after else None,
        )
        await asyncio.to_thread(batches.add, record)
        queue.wake()
        return json_reply(record.reply())

    @app.get(
        PATH,
        tags=["batches"],
        summary="List batches",
        **page.describe(BatchList, query=page_query(MAX_PAGE)),
    )
    async def list_batches(request: Request) -> Response:
        wish = page_of(request, default_limit=DEFAULT_PAGE, max_limit=MAX_PAGE)
        records, has_more = await asyncio.to_thread(batches.page, owner_of(request), wish)
        return json_reply(
            BatchList(
                data=[record.reply(queue.counts(record.id)) for record in records],
                first_id=records[0].id if records else None,
                last_id=records[-1].id if records else None,
                has_more=has_more,
            )
        )

    @app.get(
        PATH + "/{batch_id}",
        tags=["batches"],
        summary="Show a batch",
        **page.describe(BatchReply, path_name="batch_id"),
    )
    async def show(request: Request) -> Response:
        batch_id = request.path_params["batch_id"]
        record = await asyncio.to_thread(batches.get, owner_of(request), batch_id)
        return json_reply(record.reply(queue.counts(batch_id)))

    @app.post(
        PATH + "/{batch_id}/cancel",
        tags=["batches"],
        summary="Cancel a batch",
        **page.describe(BatchReply, path_name="batch_id"),
    )
    async def cancel(request: Request) -> Response:
        batch_id = request.path_params["batch_id"]
        record = await asyncio.to_thread(batches.get, owner_of(request), batch_id)
        cancelled = await queue.cancel(record)
        return json_reply(cancelled.reply(queue.counts(batch_id)))


def served_endpoints(app: FastAPI) -> tuple[str, ...]:
    """Where lines of a batch may go here."""
    paths = {getattr(route, "path", None) for route in app.routes}
    return tuple(endpoint for endpoint in ENDPOINTS if endpoint in paths)


def until_healthy(serving: Serving) -> Recover:
    """Waits until the engine is well: a batch outlives an engine that has to be started anew."""

    async def recover() -> None:
        while True:
            try:
                return await serving.engine.check_health()
            except EngineError:
                await asyncio.sleep(HEALTH_CHECK_S)

    return recover


def _check_endpoint(app: FastAPI, endpoint: str) -> None:
    served = served_endpoints(app)
    if endpoint not in served:
        raise RequestError(
            f"endpoint {quoted(endpoint)} is not served for batches; one of {', '.join(served)}.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="endpoint",
        )


def _check_input(files: FileStore, owner: str, file_id: str) -> None:
    try:
        file = files.get(owner, file_id)
    except RequestError as error:
        raise RequestError(error.message, code=error.code, param="input_file_id") from None
    if file.purpose != "batch":
        raise RequestError("The input file must be uploaded with purpose batch.", param="input_file_id")
