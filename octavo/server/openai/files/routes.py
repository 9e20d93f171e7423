"""/v1/files: upload, list, show, read, delete."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from octavo.server.auth import owner_of
from octavo.server.openai.files.schema import FileDeleted, FileList, FileReply
from octavo.server.openai.files.store import FileStore, StoredFile
from octavo.server.openai.files.upload import PURPOSES, Uploads
from octavo.server.openapi import ApiPage
from octavo.server.paging import page_of, page_query
from octavo.server.replies import json_reply

PATH = "/v1/files"
MAX_PAGE = 10_000
FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"enum": list(PURPOSES)},
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer"},
    },
    "required": ["file", "purpose"],
}


def add_file_routes(app: FastAPI, page: ApiPage, store: FileStore, uploads: Uploads) -> None:
    taken = page.describe(FileReply)
    taken["openapi_extra"]["requestBody"] = {
        "required": True,
        "content": {"multipart/form-data": {"schema": FORM}},
    }

    @app.post(PATH, tags=["files"], summary="Upload a file", **taken)
    async def upload(request: Request) -> Response:
        return json_reply(file_reply(await uploads.receive(request, owner_of(request))))

    @app.get(
        PATH,
        tags=["files"],
        summary="List files",
        **page.describe(FileList, query={"purpose": {"type": "string"}, **page_query(MAX_PAGE)}),
    )
    async def list_files(request: Request) -> Response:
        wish = page_of(request, default_limit=MAX_PAGE, max_limit=MAX_PAGE)
        purpose = request.query_params.get("purpose")
        files, has_more = await asyncio.to_thread(store.page, owner_of(request), purpose, wish)
        return json_reply(
            FileList(
                data=[file_reply(file) for file in files],
                first_id=files[0].id if files else None,
                last_id=files[-1].id if files else None,
                has_more=has_more,
            )
        )

    place = "/{file_id}"

    @app.get(
        PATH + place, tags=["files"], summary="Show a file", **page.describe(FileReply, path_name="file_id")
    )
    async def show(request: Request) -> Response:
        return json_reply(file_reply(await _file(store, request)))

    @app.delete(
        PATH + place,
        tags=["files"],
        summary="Delete a file",
        **page.describe(FileDeleted, path_name="file_id"),
    )
    async def delete(request: Request) -> Response:
        file_id = request.path_params["file_id"]
        await asyncio.to_thread(store.delete, owner_of(request), file_id)
        return json_reply(FileDeleted(id=file_id))

    read = page.describe(FileReply, path_name="file_id")
    read["responses"][200]["content"] = {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
    }

    @app.get(PATH + place + "/content", tags=["files"], summary="Read a file", **read)
    async def content(request: Request) -> Response:
        file = await _file(store, request)
        return FileResponse(
            store.content(file),
            filename=file.filename,
            media_type="application/octet-stream",  # Whatever it claims to be, no browser shall run it.
            headers={"x-content-type-options": "nosniff"},
        )


def file_reply(file: StoredFile) -> FileReply:
    return FileReply(
        id=file.id,
        bytes=file.num_bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=file.purpose,
    )


async def _file(store: FileStore, request: Request) -> StoredFile:
    return await asyncio.to_thread(store.get, owner_of(request), request.path_params["file_id"])
