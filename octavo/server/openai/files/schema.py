"""/v1/files: what replies look like."""

from __future__ import annotations

import msgspec


class FileReply(msgspec.Struct, kw_only=True):
    """One file."""

    id: str
    object: str = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: str = "processed"


class FileList(msgspec.Struct, kw_only=True):
    """Some of them, newest first unless asked otherwise."""

    object: str = "list"
    data: list[FileReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(msgspec.Struct, kw_only=True):
    """It is gone."""

    id: str
    object: str = "file"
    deleted: bool = True
