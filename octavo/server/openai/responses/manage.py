"""What is done with a response by its id: show, follow, cancel, delete, list what it was made from."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.auth import owner_of
from octavo.server.errors import quoted
from octavo.server.openai.responses.history import items_before
from octavo.server.openai.responses.library import Library
from octavo.server.openai.responses.query import flag_in, number_in
from octavo.server.openai.responses.reply import Item, ResponseDeleted, ResponseItemList
from octavo.server.paging import Page, page_of
from octavo.server.replies import json_reply
from octavo.server.stream import EventStream

MAX_PAGE = 100
PAGE = 20


async def show_response(library: Library, request: Request) -> Response:
    owner, response_id = owner_of(request), request.path_params["response_id"]
    is_stream = flag_in(request, "stream")
    after = number_in(request, "starting_after")
    if after is not None and not is_stream:
        raise RequestError("starting_after is for streams; set stream to true.", param="starting_after")
    if flag_in(request, "include_obfuscation"):
        raise RequestError(
            "Events are not padded; set include_obfuscation to false.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="include_obfuscation",
        )
    stored = await library.get(owner, response_id)
    return _followed(library, owner, response_id, after) if is_stream else json_reply(stored.reply)


def _followed(library: Library, owner: str, response_id: str, after: int | None) -> Response:
    job = library.background.find(owner, response_id)
    if job is None:
        raise RequestError(
            "The events of this response are not kept: only those of the latest background responses are. "
            "Fetch it with stream=false.",
            param="stream",
        )
    begin = -1 if after is None else after
    job.log.check_start(begin)
    return EventStream(job.log.follow(begin), ending=b"", error_frame=job.error_frame)


async def cancel_response(library: Library, request: Request) -> Response:
    owner, response_id = owner_of(request), request.path_params["response_id"]
    stored = await library.get(owner, response_id)
    if not stored.reply.background:
        raise RequestError(
            "Only responses with background can be cancelled; others end when their client leaves.",
            param="response_id",
        )
    job = library.background.find(owner, response_id)
    if job is not None:
        await job.cancel()
    return json_reply(stored.reply)


async def delete_response(library: Library, request: Request) -> Response:
    response_id = request.path_params["response_id"]
    await library.delete(owner_of(request), response_id)
    return json_reply(ResponseDeleted(response_id))


async def list_input_items(library: Library, request: Request) -> Response:
    owner, response_id = owner_of(request), request.path_params["response_id"]
    page = page_of(request, default_limit=PAGE, max_limit=MAX_PAGE)
    stored = await library.get(owner, response_id)
    items = [*await items_before(library, owner, stored), *stored.input]
    return json_reply(_listed(items[::-1] if page.is_descending else items, page))


def _listed(items: list[Item], page: Page) -> ResponseItemList:
    begin = 0
    if page.after is not None:
        ids = [item["id"] for item in items]
        if page.after not in ids:
            raise RequestError(f"after: there is no {quoted(page.after)} in this list.", param="after")
        begin = ids.index(page.after) + 1
    part = items[begin : begin + page.limit]
    return ResponseItemList(
        data=part,
        first_id=part[0]["id"] if part else None,
        last_id=part[-1]["id"] if part else None,
        has_more=begin + page.limit < len(items),
    )
