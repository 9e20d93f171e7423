"""Entries: what became of a line, as it stands in an output or error file."""

from __future__ import annotations

import msgspec

from octavo.base.errors import OctavoError


class EntryResponse(msgspec.Struct):
    """What the route answered."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class EntryError(msgspec.Struct):
    """Why the line never came to a route."""

    code: str
    message: str


class Entry(msgspec.Struct, kw_only=True):
    """One line of an output or error file."""

    id: str
    custom_id: str | None
    response: EntryResponse | None = None
    error: EntryError | None = None

    @property
    def is_success(self) -> bool:
        return self.response is not None and self.response.status_code < 300


class EntryStatus(msgspec.Struct):
    """The part of a response that says whether it is good."""

    status_code: int


class EntryKey(msgspec.Struct):
    """The part of an entry that says which line it is about, and how that went."""

    id: str
    custom_id: str | None
    response: EntryStatus | None = None

    @property
    def key(self) -> str:
        return self.custom_id or self.id

    @property
    def is_success(self) -> bool:
        return self.response is not None and self.response.status_code < 300


def entry_id(number: int) -> str:
    """Of a line of one file: the same whenever it runs."""
    return f"batch_req_{number:06d}"


def refused(number: int, custom_id: str | None, error: OctavoError) -> Entry:
    """An entry for a line that could not be executed."""
    return Entry(
        id=entry_id(number),
        custom_id=custom_id,
        error=EntryError(code=error.code.value.code, message=error.message),
    )
