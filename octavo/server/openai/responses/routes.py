"""The Responses routes and how the OpenAPI page describes them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openai.responses.body import ResponsesBody
from octavo.server.openai.responses.create import create_response
from octavo.server.openai.responses.events import AnyResponseEvent
from octavo.server.openai.responses.library import open_library
from octavo.server.openai.responses.manage import (
    MAX_PAGE,
    cancel_response,
    delete_response,
    list_input_items,
    show_response,
)
from octavo.server.openai.responses.reply import ResponseDeleted, ResponseItemList, ResponseReply
from octavo.server.openapi import ApiPage
from octavo.server.paging import page_query
from octavo.server.serving import Serving

ONE = "/v1/responses/{response_id}"
SHOW_QUERY = {
    "stream": {"type": "boolean"},
    "starting_after": {"type": "integer", "minimum": 0},
}


def add_response_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    library = open_library(serving.server, serving.lifecycle, serving.accounts)

    @app.post(
        "/v1/responses",
        tags=["responses"],
        summary="Answer a conversation that the server may remember",
        **page.describe(ResponseReply, body=ResponsesBody, chunk=AnyResponseEvent),
    )
    async def create(request: Request) -> Response:
        return await create_response(serving, library, request)

    @app.get(
        ONE,
        tags=["responses"],
        summary="Show a response, or follow its events",
        **page.describe(ResponseReply, path_name="response_id", query=SHOW_QUERY, chunk=AnyResponseEvent),
    )
    async def show(request: Request) -> Response:
        return await show_response(library, request)

    @app.delete(
        ONE,
        tags=["responses"],
        summary="Forget a response",
        **page.describe(ResponseDeleted, path_name="response_id"),
    )
    async def delete(request: Request) -> Response:
        return await delete_response(library, request)

    @app.post(
        f"{ONE}/cancel",
        tags=["responses"],
        summary="End a response that runs in the background",
        **page.describe(ResponseReply, path_name="response_id"),
    )
    async def cancel(request: Request) -> Response:
        return await cancel_response(library, request)

    @app.get(
        f"{ONE}/input_items",
        tags=["responses"],
        summary="List what a response was made from",
        **page.describe(ResponseItemList, path_name="response_id", query=page_query(MAX_PAGE)),
    )
    async def input_items(request: Request) -> Response:
        return await list_input_items(library, request)
