"""Multipart forms with a file, in pieces of any size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from octavo.base.errors import RequestError
from octavo.server.openai.files.form import FileTooLarge, Form
from tests.fuzz.mutate import bytes_mutator
from tests.fuzz.target import Run, Target

MAX_FILE = 4096
TYPE = b"multipart/form-data; boundary=xx"
PART = b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = (
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
    b"Content-Type: a/b\r\n\r\n{}\n\r\n"
)
WORDS = (b"--xx", b"--xx--", b"\r\n", b"\r\n\r\n", b"Content-Disposition: form-data", b'; name="file"',
         b'; filename="a"',
         b"; filename*=utf-8''%ff", b"boundary=", b'"', b"\\", b"name=", b"multipart/form-data", b"\0",
         b"a" * 300)  # fmt: skip


def opened(folder: Path) -> Run:
    """The content type stands before the first line break."""

    def run(data: bytes) -> None:
        kind, _, body = data.partition(b"\n")
        for size in (len(body) or 1, 1 + len(data) % 13):
            file = io.BytesIO()
            try:
                form = Form(kind.decode("latin-1"), file, MAX_FILE)
                for start in range(0, len(body), size):
                    form.feed(body[start : start + size])
                form.finish()
            except (RequestError, FileTooLarge):
                continue
            assert form.num_bytes == len(file.getvalue()) <= MAX_FILE
            assert form.filename and "/" not in form.filename and "\n" not in form.filename

    return run


def seeds() -> Iterator[bytes]:
    yield TYPE + b"\n" + PART + FILE + b"--xx--\r\n"
    yield TYPE + b"\n" + FILE + PART + b"--xx--"
    quoted = b'multipart/form-data; boundary="a b"\n--a b\r\nContent-Disposition: form-data; name="file"'
    yield quoted + b"\r\n\r\nx\r\n--a b--"


TARGET = Target(open=opened, seeds=seeds, mutate=bytes_mutator(WORDS), max_bytes=8192)
