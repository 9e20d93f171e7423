"""POST /v1/files: from the connection to the disk, checked while reading."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from starlette.requests import Request
from starlette.types import Receive

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.server.errors import ClientGone, quoted
from octavo.server.openai.files.disk import writing
from octavo.server.openai.files.form import FILE_FIELD, FileTooLarge, Form
from octavo.server.openai.files.store import MAX_LIFE_S, MIN_LIFE_S, FileStore, StoredFile, new_file_id

PURPOSES = ("batch", "user_data")
"""What clients may store files for."""

FORM_BYTES = 64 * 1024
"""Room in a body for all of the form that is not the file."""

MAX_UPLOADS = 4
"""At the same time, of one owner: each may take as much room as is left."""

STALL_S = 60.0
UPLOAD_S = 3600.0
"""A client that sends nothing for the first, or has not finished after the second, is dropped."""


class Uploads:
    """Takes files in."""

    def __init__(self, store: FileStore, max_file_bytes: int) -> None:
        self._store = store
        self._max_file_bytes = max_file_bytes
        self._running: Counter[str] = Counter()

    async def receive(self, request: Request, owner: str) -> StoredFile:
        """Store the one file of a form. Leaves nothing behind if anything is wrong."""
        with self._turn(owner):
            room = await asyncio.to_thread(self._store.room_for_file, owner)
            file_id = new_file_id()
            part = await asyncio.to_thread(lambda: self._store.disk.content(file_id, is_part=True))
            try:
                with writing(), open(part, "xb", opener=_private) as out:
                    form = await self._read(request, out, room)
                    purpose, life_s = _wishes(form.fields)
                    await asyncio.to_thread(_settle, out)
                file = self._described(file_id, owner, form, purpose, life_s)
                await asyncio.to_thread(self._list, file)
                return file
            finally:
                part.unlink(missing_ok=True)

    async def _read(self, request: Request, out: BinaryIO, room: int) -> Form:
        form = Form(request.headers.get("content-type"), out, min(room, self._max_file_bytes))
        try:
            async with asyncio.timeout(UPLOAD_S):
                await _feed(form, request.receive)
        except TimeoutError:
            raise RequestError(
                f"The file stopped coming for {STALL_S:.0f} s, or took over {UPLOAD_S:.0f} s.",
                code=ErrorCode.REQUEST_TIMEOUT,
            ) from None
        except FileTooLarge:
            if room < self._max_file_bytes:
                raise self._store.full() from None
            raise RequestError(
                f"The file is larger than {self._max_file_bytes} bytes. Split it, or raise --max-file-bytes.",
                code=ErrorCode.BODY_TOO_LARGE,
                param=FILE_FIELD,
            ) from None
        form.finish()
        return form

    def _described(
        self, file_id: str, owner: str, form: Form, purpose: str, life_s: int | None
    ) -> StoredFile:
        assert form.filename is not None, "a finished form has a file"
        created_at = int(self._store.now())
        return StoredFile(
            id=file_id,
            owner=owner,
            purpose=purpose,
            filename=form.filename,
            num_bytes=form.num_bytes,
            created_at=created_at,
            expires_at=None if life_s is None else created_at + life_s,
        )

    def _list(self, file: StoredFile) -> None:
        with self._store.disk.transaction() as connection:
            self._store.disk.content(file.id, is_part=True).rename(self._store.content(file))
            self._store.add(file, connection)

    @contextmanager
    def _turn(self, owner: str) -> Iterator[None]:
        if self._running[owner] >= MAX_UPLOADS:
            raise EngineError(
                f"{MAX_UPLOADS} of your files are being received already. Try again soon.",
                code=ErrorCode.OVERLOADED,
            )
        self._running[owner] += 1
        try:
            yield
        finally:
            self._running[owner] -= 1


async def _feed(form: Form, receive: Receive) -> None:
    while True:
        async with asyncio.timeout(STALL_S):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        data: bytes = message.get("body", b"")
        if data:
            await asyncio.to_thread(form.feed, data)
        if not message.get("more_body", False):
            return


def _wishes(fields: dict[str, str]) -> tuple[str, int | None]:
    """Purpose and life. Raises RequestError naming the field."""
    purpose = fields.get("purpose")
    if purpose is None:
        raise RequestError(f"purpose is missing; one of {', '.join(PURPOSES)}.", param="purpose")
    if purpose not in PURPOSES:
        raise RequestError(
            f"purpose {quoted(purpose)} is not supported; one of {', '.join(PURPOSES)}.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="purpose",
        )
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return purpose, None
    if anchor != "created_at":
        raise RequestError("expires_after.anchor must be created_at.", param="expires_after.anchor")
    if not (seconds and seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise RequestError("expires_after.seconds must be a whole number.", param="expires_after.seconds")
    if not MIN_LIFE_S <= int(seconds) <= MAX_LIFE_S:
        raise RequestError(
            f"expires_after.seconds must be {MIN_LIFE_S} to {MAX_LIFE_S}.", param="expires_after.seconds"
        )
    return purpose, int(seconds)


def _settle(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
