"""Form: a multipart body with a few short fields and one file, read piece by piece and never held whole.

The file's bytes go straight to their place on the disk; a client's file name is only ever a label.
"""

from __future__ import annotations

import logging
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import printable, quoted

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # Every wrong byte is the client's affair.

FILE_FIELD = "file"
MAX_PARTS = 16
MAX_FIELD_BYTES = 1024
MAX_NAME = 64
MAX_HEADER_BYTES = 4096
MAX_FILENAME = 255


class Form:
    """Feed it pieces, then `finish`. Raises RequestError as soon as something is wrong."""

    def __init__(self, content_type: str | None, file: BinaryIO, max_file_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.num_bytes = 0
        self._file = file
        self._max_file_bytes = max_file_bytes
        self._num_parts = 0
        self._is_complete = False
        self._part = _Part()
        self._parser = MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body. Writes to the file."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed() from None

    def finish(self) -> None:
        """The body is over: check that the form is."""
        if not self._is_complete:
            raise _malformed()
        if self.filename is None:
            raise RequestError("The form has no file.", param=FILE_FIELD)

    def _begin_part(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise RequestError(f"The form has more than {MAX_PARTS} parts.", code=ErrorCode.BODY_TOO_LARGE)
        self._part = _Part()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name = _joined(self._part.header_name, data[start:end])

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value = _joined(self._part.header_value, data[start:end])

    def _end_header(self) -> None:
        part = self._part
        if part.header_name.lower() == b"content-disposition":
            part.disposition = part.header_value
        part.header_name, part.header_value = b"", b""

    def _end_headers(self) -> None:
        part = self._part
        _, options = parse_options_header(part.disposition)
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if not part.name or len(part.name) > MAX_NAME:
            raise _malformed()
        if part.name == FILE_FIELD:
            self._begin_file(options.get(b"filename"))
        elif part.name in self.fields:
            raise RequestError(f"{quoted(part.name)} is given twice.", param=quoted(part.name).strip("'"))

    def _begin_file(self, filename: bytes | None) -> None:
        if self.filename is not None:
            raise RequestError("The form has more than one file.", param=FILE_FIELD)
        if filename is None:
            raise RequestError("file must be a file with a name, not a plain field.", param=FILE_FIELD)
        self.filename = _label(filename)

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == FILE_FIELD:
            self.num_bytes += end - start
            if self.num_bytes > self._max_file_bytes:
                raise FileTooLarge
            self._file.write(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > MAX_FIELD_BYTES:
            raise RequestError(
                f"{quoted(self._part.name)} is longer than {MAX_FIELD_BYTES} bytes.",
                param=quoted(self._part.name).strip("'"),
            )

    def _end_part(self) -> None:
        if self._part.name != FILE_FIELD:
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._is_complete = True


class FileTooLarge(Exception):
    """The file has more bytes than it may; the caller knows what set the limit."""


class _Part:
    """The part being read."""

    __slots__ = ("disposition", "header_name", "header_value", "name", "value")

    def __init__(self) -> None:
        self.header_name = b""
        self.header_value = b""
        self.disposition = b""
        self.name = ""
        self.value = b""


def _joined(header: bytes, more: bytes) -> bytes:
    if len(header) + len(more) > MAX_HEADER_BYTES:
        raise _malformed()
    return header + more


def _boundary(content_type: str | None) -> bytes:
    kind, options = parse_options_header(content_type or "")
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise RequestError(
            "Send the file as 'Content-Type: multipart/form-data' with a boundary.", code=ErrorCode.MEDIA_TYPE
        )
    return boundary


def _label(filename: bytes) -> str:
    """The last part of a client's path, printable and short."""
    text = filename.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return printable(text).replace("\n", " ")[:MAX_FILENAME] or "upload"


def _malformed() -> RequestError:
    return RequestError("The form is not complete or not valid multipart/form-data.")
